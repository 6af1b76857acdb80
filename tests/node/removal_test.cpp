// How a member learns that it belongs to its cluster, or does not any more: three real members in virtual time.
#include <doctest/doctest.h>

#include "net/codec.hpp"
#include "sim_members.hpp"
#include "stranger.hpp"

using namespace flotilla;
using namespace flotilla::sim;
using namespace std::chrono_literals;
using flotilla::node::Change;

namespace {

bool knows(const SimMember& member, NodeId id) {
  return member.core().configuration().contains(id);
}

void check_removed(const SimMember& member) {
  REQUIRE(member.status().fault);
  CHECK(*member.status().fault == Errc::removed);
}

}  // namespace

TEST_SUITE_BEGIN("node.removal");

TEST_CASE("a member that has applied its own removal stops, though nobody can tell it any more (D10)") {
  Members members;
  SimMember* const leader = members.leader();
  REQUIRE(leader != nullptr);
  leader->change(Change::remove(leader->id()), 30s);
  const auto gone = [&] {
    return !knows(*leader, leader->id()) && leader->status().commit_index >= leader->core().configuration_index();
  };
  REQUIRE(members.scheduler.run_until(gone, 10s));
  members.cut_off(*leader);
  members.scheduler.run_for(10s);
  check_removed(*leader);
}

TEST_CASE("a removed leader goes only when the voter that is to follow it has everything and was told (D9)") {
  Members members([](MemberOptions& options) {
    if (!options.found) options.disk_delay = 50ms;
  });
  SimMember* const leader = members.leader();
  REQUIRE(leader != nullptr);
  REQUIRE(leader == members.all[0].get());  // whose disk is fast: it has applied its removal before they have the rest
  const Term term = leader->status().term;
  leader->change(Change::remove(leader->id()), 30s);
  for (int i = 0; i < 20; ++i) {
    leader->append("k", false, 10s);
    members.scheduler.run_for(5ms);
  }
  const auto followed = [&] { return members.leader() != nullptr && members.leader() != leader; };
  REQUIRE(members.scheduler.run_until(followed, 500ms));
  CHECK(members.leader()->status().term == term.next());
  members.scheduler.run_for(1s);
  check_removed(*leader);
}

TEST_CASE("a member that comes back long after it was removed hears of it from whom it asks (D19)") {
  Members members;
  SimMember* const leader = members.leader();
  SimMember* const away = members.follower();
  REQUIRE(leader != nullptr);
  away->kill();
  leader->change(Change::remove(away->id()), 30s);
  members.scheduler.run_for(60s);  // nobody keeps it in mind to tell it
  REQUIRE_FALSE(knows(*leader, away->id()));
  REQUIRE(away->start().has_value());
  members.scheduler.run_for(20s);
  check_removed(*away);
}

TEST_CASE("a member whose admission was lost with the leader that began it is admitted by the next") {
  Members members;
  SimMember* const former = members.leader();
  SimMember* const other = members.follower();
  REQUIRE(former != nullptr);
  members.cut_off(*former);
  const Term term = former->status().term;
  SimMember& joiner = members.add({former->address(), other->address()});
  REQUIRE(members.scheduler.run_until([&] { return knows(joiner, joiner.id()); }, 1s));
  const Index admission = joiner.core().configuration_index();
  CHECK(joiner.core().term_at(admission) == term);
  former->kill();
  members.scheduler.run_for(30s);
  SimMember* const leader = members.leader();
  REQUIRE(leader != nullptr);
  CHECK(knows(*leader, joiner.id()));
  CHECK(joiner.core().term_at(admission) > term);
  CHECK(joiner.status().applied_index == leader->status().applied_index);
}

TEST_CASE("a member that was removed goes on asking, whoever seemed to lead for a moment") {
  Members members;
  SimMember* const leader = members.leader();
  SimMember* const away = members.follower();
  REQUIRE(leader != nullptr);
  members.cut_off(*away);
  leader->change(Change::remove(away->id()), 30s);
  members.scheduler.run_for(30s);
  REQUIRE_FALSE(knows(*leader, away->id()));
  // Between two of its ticks somebody leads, and does not any more.
  Stranger stranger(members);
  net::Hello hello = stranger.hello(*away);
  hello.node_id = leader->id();
  hello.incarnation = leader->status().incarnation;
  net::Link link(stranger.loop, stranger.transport,
                 {.tag = net::raft_tag, .address = away->address(), .local = hello, .expected = away->id()},
                 {.up = [](const net::Hello&) {}, .frame = [](auto) {}, .down = [](const Error&) {}});
  REQUIRE(members.scheduler.run_until([&] { return link.up(); }, 5s));
  const Term term = away->status().term;
  link.send(net::encode(raft::Message{leader->id(), away->id(), term, raft::Heartbeat{}}));
  link.send(net::encode(raft::Message{leader->id(), away->id(), term.next(), raft::HeartbeatReply{}}));
  members.scheduler.run_for(1s);
  CHECK(away->status().term == term.next());
  members.network.heal_all();
  members.scheduler.run_for(30s);
  check_removed(*away);
}

TEST_SUITE_END();
