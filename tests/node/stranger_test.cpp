// What a member takes from whoever speaks its protocols: three real members in virtual time, and one more host.
#include <doctest/doctest.h>

#include "net/codec.hpp"
#include "node/forwarding.hpp"
#include "node/membership.hpp"
#include "sim_members.hpp"
#include "stranger.hpp"

using namespace flotilla;
using namespace flotilla::sim;
using namespace std::chrono_literals;

TEST_SUITE_BEGIN("node.stranger");

TEST_CASE("a forwarded call that is late, malformed or unknown to a voter is refused with its reason, not proposed") {
  Members members;
  SimMember* const leader = members.leader();
  REQUIRE(leader != nullptr);
  Stranger stranger(members);
  std::vector<node::Refusal> refusals;
  node::Forwarding forwarding(stranger.loop, stranger.transport, stranger.mux, {.local = stranger.hello(*leader)},
                              {.calls = [](auto) { return std::vector<node::Refusal>(); },
                               .refused = [&](auto more) { refusals.insert(refusals.end(), more.begin(), more.end()); },
                               .link = [](bool) {}});
  const Member to{leader->id(), leader->address(), true};
  forwarding.set_leader(&to);
  REQUIRE(members.scheduler.run_until([&] { return forwarding.up(); }, 5s));
  const std::string_view args[] = {"list", "1"};
  const SharedBytes good = state::encode_command({7, 1}, 0, "append", args);
  const SharedBytes unknown = state::encode_command({7, 1}, 0, "nobody has it", args);
  const Index last = leader->status().last_index;
  forwarding.send({{.sequence = 1, .attempt = 1, .remaining = 0ms, .payload = good},
                   {.sequence = 2, .attempt = 1, .remaining = 1s, .payload = SharedBytes("no command")},
                   {.sequence = 3, .attempt = 1, .remaining = 1s, .payload = unknown}});
  members.scheduler.run_for(1s);
  CHECK(leader->status().last_index == last);
  REQUIRE(refusals.size() == 3);
  CHECK(refusals[0].code == Errc::timeout);
  CHECK(refusals[1].code == Errc::invalid_argument);
  CHECK(refusals[2].code == Errc::unknown_command);
}

TEST_CASE("who sends a message in the name of another, or to another, is disconnected, and it is not taken (B12)") {
  Members members;
  SimMember* const leader = members.leader();
  SimMember* const follower = members.follower();
  REQUIRE(leader != nullptr);
  Stranger stranger(members);
  int broken = 0;
  net::Link link(
      stranger.loop, stranger.transport,
      {.tag = net::raft_tag, .address = leader->address(), .local = stranger.hello(*leader), .expected = leader->id()},
      {.up = [](const net::Hello&) {}, .frame = [](auto) {}, .down = [&](const Error&) { ++broken; }});
  const auto say = [&](NodeId from, NodeId to) {
    REQUIRE(members.scheduler.run_until([&] { return link.up(); }, 5s));
    link.send(net::encode(raft::Message{from, to, Term{leader->status().term.value + 1}, raft::HeartbeatReply{}}));
    members.scheduler.run_for(100ms);
  };
  const Term term = leader->status().term;
  say(Stranger::id, leader->id());
  CHECK(broken == 0);
  say(follower->id(), leader->id());
  CHECK(broken == 1);
  say(Stranger::id, follower->id());
  CHECK(broken == 2);
  CHECK(leader->status().role == Role::leader);
  CHECK(leader->status().term == term);
}

TEST_CASE("the run before of a member that started again cannot connect, also while the later one is away (P4)") {
  Members members;
  SimMember* const leader = members.leader();
  SimMember* const follower = members.follower();
  REQUIRE(leader != nullptr);
  const std::uint64_t now = follower->status().incarnation;
  Stranger stranger(members);
  const auto connect = [&](std::uint64_t incarnation) {
    auto link = std::make_unique<net::Link>(
        stranger.loop, stranger.transport,
        net::Link::Options{.tag = net::raft_tag,
                           .address = leader->address(),
                           .local = {leader->status().cluster_id, follower->id(), incarnation, {}},
                           .expected = leader->id()},
        net::Link::Events{.up = [](const net::Hello&) {}, .frame = [](auto) {}, .down = [](const Error&) {}});
    return members.scheduler.run_until([&] { return link->up(); }, 3s);
  };
  CHECK(connect(now + 2));
  members.scheduler.run_for(1s);
  CHECK_FALSE(connect(now + 1));
  CHECK(connect(now + 2));
}

TEST_CASE("a member that one cluster admitted enters no other, whatever it is told (D14)") {
  Members members;
  Stranger stranger(members);
  REQUIRE(stranger.mux.listen("10.0.0.9:7000"));
  const ClusterId first{1, 2};
  const ClusterId second{3, 4};
  int asked = 0;
  const auto join = [&](const Member&, bool) {
    return node::JoinAnswer{std::nullopt, asked++ == 0 ? first : second, {}};
  };
  const node::Admission admission(stranger.loop, stranger.mux,
                                  {.local = {first, Stranger::id, 1, {}}, .limits = {}, .log_sink = {}},
                                  {.join = join, .change = [](const node::Change&) { return node::ChangeAnswer{}; }});
  SimMember& joiner = members.add({"10.0.0.9:7000"});
  members.scheduler.run_for(10s);
  CHECK(asked > 1);
  REQUIRE(joiner.status().fault);
  CHECK(*joiner.status().fault == Errc::wrong_cluster);
  CHECK(joiner.status().cluster_id == first);
  joiner.kill();
  REQUIRE(joiner.start().has_value());
  members.scheduler.run_for(1ms);
  CHECK(joiner.status().cluster_id == first);
}

TEST_SUITE_END();
