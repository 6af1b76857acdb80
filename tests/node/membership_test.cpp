#include "node/membership.hpp"

#include <optional>

#include <doctest/doctest.h>

#include "base/codec.hpp"
#include "node/changes.hpp"
#include "support/sim_loop.hpp"
#include "support/sim_transport.hpp"

using namespace flotilla;
using namespace flotilla::test;
using namespace std::chrono_literals;
using flotilla::node::Admission;
using flotilla::node::Change;
using flotilla::node::ChangeAnswer;
using flotilla::node::JoinAnswer;
using flotilla::node::Joiner;

namespace {

const ClusterId cluster{1, 2};

struct Host {
  Host(SimScheduler& scheduler, SimNetwork& network, const std::string& name)
      : loop(scheduler), transport(network, loop, name) {}
  SimLoop loop;
  SimTransport transport;
};

/// A member that is asked, and what it heard.
struct World {
  World() { REQUIRE(mux.listen("far:1")); }
  JoinAnswer join(const Member& member, bool stranger) {
    joined.push_back(member);
    strangers.push_back(stranger);
    return answer;
  }

  SimScheduler scheduler{7};
  SimNetwork network{scheduler};
  Host near{scheduler, network, "near"};
  Host far{scheduler, network, "far"};
  net::Mux mux{far.loop, far.transport, {}};
  JoinAnswer answer{std::nullopt, cluster, {}};
  std::vector<Member> joined;
  std::vector<bool> strangers;
  std::vector<Change> changes;
  Admission admission{far.loop,
                      mux,
                      {.local = {cluster, NodeId{2}, 1, "far:1"}, .limits = {}, .log_sink = {}},
                      {.join = [this](const Member& member, bool stranger) { return join(member, stranger); },
                       .change =
                           [this](const Change& change) {
                             changes.push_back(change);
                             return ChangeAnswer{};
                           }}};
};

/// Sends one frame to the world's member.
struct Asker {
  Asker(World& world, ClusterId stated, std::uint8_t type, std::string body)
      : link(world.near.loop, world.near.transport,
             {.tag = net::admin_tag,
              .address = "far:1",
              .local = {stated, NodeId{1}, 1, "near:1"},
              .limits = {},
              .log_sink = {}},
             {.up =
                  [this, type, body](const net::Hello&) {
                    net::Frame frame{.type = type, .parts = {}};
                    frame.parts.emplace_back(std::string(body));
                    link.send(std::move(frame));
                  },
              .frame = [this](const net::ReceivedFrame&) { ++answers; },
              .down = [this](const Error&) { ++downs; }}) {
    world.scheduler.run_for(20ms);
  }
  int answers = 0;
  int downs = 0;
  net::Link link;
};

std::string change_body(const Change& change) {
  std::string body;
  Encoder(body).u64(1).raw(encode(change));
  return body;
}

std::string join_body(std::uint64_t id, std::uint8_t flags, std::string_view address) {
  std::string body;
  Encoder(body).u64(id).u8(flags).bytes(address);
  return body;
}

constexpr std::uint8_t join_frame = 1;

}  // namespace

TEST_SUITE_BEGIN("node.membership");

TEST_CASE("a change is taken from whoever stated the cluster, and from no stranger (D18)") {
  World world;
  const Change change = Change::remove(NodeId{2});
  const Asker stranger(world, {}, node::change_frame, change_body(change));
  CHECK(world.changes.empty());
  CHECK(stranger.answers == 0);
  CHECK(stranger.downs > 0);
  const Asker member(world, cluster, node::change_frame, change_body(change));
  CHECK(world.changes == std::vector{change});
  CHECK(member.answers == 1);
  CHECK(member.downs == 0);
}

TEST_CASE("a join is for who sends it, and told apart from a stranger's (D18)") {
  World world;
  CHECK(Asker(world, {}, join_frame, join_body(2, 0, "near:1")).downs > 0);
  CHECK(Asker(world, cluster, join_frame, join_body(2, 0, "near:1")).downs > 0);
  CHECK(world.joined.empty());
  CHECK(Asker(world, {}, join_frame, join_body(1, 0, "near:1")).answers == 1);
  CHECK(Asker(world, cluster, join_frame, join_body(1, 0, "near:1")).answers == 1);
  CHECK(world.strangers == std::vector{true, false});
}

TEST_CASE("what cannot be decoded ends the connection, and nobody hears of it") {
  World world;
  const std::string good = change_body(Change::promote(NodeId{2}));
  for (std::size_t cut = 0; cut < good.size(); ++cut) {
    CHECK(Asker(world, cluster, node::change_frame, good.substr(0, cut)).downs > 0);
  }
  CHECK(Asker(world, cluster, 99, good).downs > 0);
  CHECK(Asker(world, {}, join_frame, join_body(0, 0, "a:1")).downs > 0);
  CHECK(Asker(world, {}, join_frame, join_body(1, 2, "a:1")).downs > 0);
  CHECK(Asker(world, {}, join_frame, join_body(1, 0, "")).downs > 0);
  CHECK(Asker(world, {}, join_frame, join_body(1, 0, std::string(1000, 'a'))).downs > 0);
  CHECK(world.changes.empty());
  CHECK(world.joined.empty());
}

TEST_CASE("a joiner says whether it wants to vote, and hears that it is admitted or that it was removed") {
  for (const bool as_learner : {false, true}) {
    for (const bool removed : {false, true}) {
      CAPTURE(as_learner);
      CAPTURE(removed);
      World world;
      if (removed) world.answer.refused = Error(Errc::removed);
      std::optional<ClusterId> admitted;
      std::optional<Error> turned_away;
      Joiner joiner(world.near.loop, world.near.transport,
                    {.local = {{}, NodeId{1}, 1, "near:1"},
                     .as_learner = as_learner,
                     .addresses = {"nobody:1", "far:1"},
                     .limits = {},
                     .log_sink = {}},
                    {.admitted = [&](const ClusterId& id) { admitted = id; },
                     .removed = [&](const Error& why) { turned_away = why; }});
      world.scheduler.run_for(10s);
      REQUIRE_FALSE(world.joined.empty());
      CHECK(world.joined[0] == Member{NodeId{1}, "near:1", false, !as_learner});
      CHECK(admitted.has_value() == !removed);
      CHECK(turned_away.has_value() == removed);
    }
  }
}

TEST_SUITE_END();
