#include "node/changes.hpp"

#include <deque>
#include <optional>

#include <doctest/doctest.h>

#include "base/codec.hpp"
#include "led_core.hpp"
#include "support/sim_loop.hpp"
#include "support/sim_transport.hpp"

using namespace flotilla;
using namespace flotilla::test;
using namespace std::chrono_literals;
using flotilla::node::Change;
using flotilla::node::ChangeAnswer;
using flotilla::node::Changes;
using Verdict = ChangeAnswer::Verdict;

namespace {

const ClusterId cluster{1, 2};

ChangeAnswer answer_of(Verdict verdict, std::string reason = "why") {
  const Errc code = verdict == Verdict::refused ? Errc::invalid_argument : Errc::overloaded;
  return {verdict, {}, Error(code, std::move(reason))};
}

std::vector<Member> voters(std::size_t count) {
  std::vector<Member> members;
  for (std::size_t i = 1; i <= count; ++i) members.push_back({NodeId{i}, "h:1", true});
  return members;
}

/// A leader that answers what it was told to, a barrier that returns when the test says so, and what came of a change.
struct World {
  /// Alone it leads.
  explicit World(std::size_t members = 1) : core(core_of(voters(members))) {
    if (members == 1) {
      core.campaign();
      work();
      REQUIRE(core.role() == Role::leader);
    }
  }
  void work() { write_all(core); }
  void ask(Change change, Duration timeout = 10s) {
    changes.add(
        {std::move(change), scheduler.now() + timeout, [this](Result<void> ended) { result = std::move(ended); }});
  }
  void advance() { changes.advance(core, scheduler.now()); }
  void pass(Duration time) {
    advance();
    scheduler.run_for(time);
    advance();
    changes.tick(scheduler.now(), true);
  }
  Errc error() const {
    REQUIRE(result.has_value());
    REQUIRE_FALSE(result->has_value());
    return static_cast<Errc>(result->error().code().value());
  }

  SimScheduler scheduler{7};
  SimNetwork network{scheduler};
  SimLoop loop{scheduler};
  SimTransport transport{network, loop, "near"};
  raft::Core core;
  std::deque<ChangeAnswer> answers;
  int asked = 0;
  std::function<void(bool)> barrier;
  std::optional<Result<void>> result;
  Changes changes{{.local = NodeId{1}, .ask_interval = 100ms},
                  {.carry_out =
                       [this](const Change&) {
                         ++asked;
                         if (answers.empty()) return answer_of(Verdict::later);
                         ChangeAnswer next = std::move(answers.front());
                         answers.pop_front();
                         return next;
                       },
                   .barrier = [this](Duration, std::function<void(bool)> done) { barrier = std::move(done); },
                   .connect =
                       [this](const Member& leader) {
                         return std::make_unique<net::Link>(
                             loop, transport,
                             net::Link::Options{.tag = net::admin_tag,
                                                .address = leader.address,
                                                .local = {cluster, NodeId{1}, 1, "near:1"},
                                                .limits = {},
                                                .log_sink = {}},
                             net::Link::Events{
                                 .up = [this](const net::Hello&) { changes.link_up(); },
                                 .frame = [this](net::ReceivedFrame frame) { changes.receive(frame, scheduler.now()); },
                                 .down = [this](const Error&) { changes.link_lost(); }});
                       },
                   .ready = [this] { loop.post([this] { advance(); }); }}};
};

/// The leader behind a link. Answers only what it is told to.
struct Far {
  explicit Far(World& world) : loop(world.scheduler), transport(world.network, loop, "far"), mux(loop, transport, {}) {
    REQUIRE(mux.listen("far:1"));
    server.emplace(loop, mux,
                   net::LinkServer::Options{
                       .tag = net::admin_tag, .local = {cluster, NodeId{2}, 1, "far:1"}, .limits = {}, .log_sink = {}},
                   net::LinkServer::Events{.up = [](auto, const net::Hello&) { return Result<void>(); },
                                           .frame =
                                               [this](auto connection, const net::ReceivedFrame& frame) {
                                                 ++asked;
                                                 from = connection;
                                                 attempt = Decoder(frame.body.view()).u64();
                                               },
                                           .down = [](auto, const Error&) {}});
  }
  void answer(const ChangeAnswer& answer) {
    REQUIRE(server->send(from, node::change_answer_to_frame(attempt, answer)));
  }
  SimLoop loop;
  SimTransport transport;
  net::Mux mux;
  std::optional<net::LinkServer> server;
  int asked = 0;
  net::LinkServer::ConnectionId from = 0;
  std::uint64_t attempt = 0;
};

const Member far_line{NodeId{2}, "far:1", true};

}  // namespace

TEST_SUITE_BEGIN("node.changes");

TEST_CASE("a change succeeds when its entry is committed, not before") {
  World world;
  const auto position = world.core.propose(raft::EntryType::noop, SharedBytes(), 1);
  REQUIRE(position);
  world.answers.push_back({Verdict::appended, *position, Error(Errc::overloaded)});
  world.ask(Change::promote(NodeId{1}));
  world.pass(1ms);
  world.pass(200ms);
  CHECK_FALSE(world.result);
  world.work();
  world.advance();
  REQUIRE(world.result);
  CHECK(world.result->has_value());
  CHECK(world.asked == 1);
}

TEST_CASE("a change whose entry another leader's replaced is asked for again") {
  World world;
  world.answers.push_back({Verdict::appended, {Term{9}, Index{1}}, Error(Errc::overloaded)});
  world.answers.push_back({Verdict::appended, {Term{1}, Index{1}}, Error(Errc::overloaded)});
  world.ask(Change::promote(NodeId{1}));
  world.pass(1ms);
  CHECK_FALSE(world.result);
  world.pass(150ms);
  world.pass(1ms);
  REQUIRE(world.result);
  CHECK(world.result->has_value());
  CHECK(world.asked == 2);
}

TEST_CASE("that it is so already is believed after a barrier and a look at the own configuration") {
  World world;
  world.answers.assign(3, answer_of(Verdict::done));
  SUBCASE("it is so") {
    world.ask(Change::promote(NodeId{1}));
    world.pass(1ms);
    world.pass(1s);
    CHECK_FALSE(world.result);
    world.barrier(false);  // nobody confirmed it: asked again
    world.pass(200ms);
    CHECK_FALSE(world.result);
    CHECK(world.asked == 2);
    world.barrier(true);
    world.pass(1ms);
    REQUIRE(world.result);
    CHECK(world.result->has_value());
  }
  SUBCASE("it is not so here") {
    world.ask(Change::remove(NodeId{1}));
    world.pass(1ms);
    world.barrier(true);
    world.pass(200ms);
    CHECK_FALSE(world.result);
    CHECK(world.asked == 2);
  }
}

TEST_CASE("at its deadline a change says whether anything was begun, and what it waited for") {
  World world;
  SUBCASE("nothing was") {
    world.answers.assign(50, answer_of(Verdict::later, "five entries behind"));
    world.ask(Change::promote(NodeId{3}), 1s);
    for (int i = 0; i < 20; ++i) world.pass(100ms);
    CHECK(world.error() == Errc::timeout);
    CHECK(world.result->error().message() == "nothing was changed: five entries behind");
    CHECK(world.asked >= 9);
    CHECK(world.asked <= 11);
  }
  SUBCASE("something was") {
    world.answers.assign(1, answer_of(Verdict::begun));
    world.ask(Change::replace(NodeId{3}, {NodeId{4}, "x:1", true}), 1s);
    for (int i = 0; i < 20; ++i) world.pass(100ms);
    CHECK(world.error() == Errc::outcome_unknown);
  }
  SUBCASE("it is in a log") {
    world.answers.push_back({Verdict::appended, {Term{1}, Index{100}}, Error(Errc::overloaded)});
    world.ask(Change::promote(NodeId{3}), 1s);
    for (int i = 0; i < 20; ++i) world.pass(100ms);
    CHECK(world.error() == Errc::outcome_unknown);
    CHECK(world.asked == 1);
  }
}

TEST_CASE("a refusal ends a change with its reason, unless something was begun before") {
  World world;
  SUBCASE("at once") {
    world.answers.assign(1, answer_of(Verdict::refused, "no member"));
    world.ask(Change::promote(NodeId{3}));
    world.pass(1ms);
    CHECK(world.error() == Errc::invalid_argument);
    CHECK(world.result->error().message() == "nothing was changed: no member");
  }
  SUBCASE("half way") {
    world.answers = {answer_of(Verdict::begun), answer_of(Verdict::refused)};
    world.ask(Change::promote(NodeId{3}));
    for (int i = 0; i < 4; ++i) world.pass(100ms);
    CHECK(world.error() == Errc::outcome_unknown);
  }
  SUBCASE("before it is sent") {
    world.ask(Change::configure(std::vector<Member>(65)));
    world.advance();
    CHECK(world.error() == Errc::invalid_argument);
    CHECK(world.asked == 0);
  }
}

TEST_CASE("a follower asks the leader, and an answer to an earlier asking is no answer") {
  World world(3);
  Far far(world);
  world.changes.set_leader(&far_line);
  world.ask(Change::promote(NodeId{1}));
  world.pass(1s);
  CHECK(far.asked == 1);
  far.attempt += 5;
  far.answer(answer_of(Verdict::refused));
  world.pass(1s);
  CHECK_FALSE(world.result);
  far.attempt -= 5;
  far.answer({Verdict::appended, {Term{1}, Index{1}}, Error(Errc::overloaded)});
  world.pass(1s);
  REQUIRE(world.result);
  CHECK(world.result->has_value());
}

TEST_CASE("a change that was sent over a link that broke may have taken effect; one that never left has not") {
  World world(3);
  std::optional<Far> far;
  SUBCASE("sent") {
    far.emplace(world);
    world.changes.set_leader(&far_line);
    world.ask(Change::promote(NodeId{3}), 5s);
    world.pass(1s);
    CHECK(far->asked == 1);
    SUBCASE("the link broke") {
      far->server->drop(far->from);
    }
    SUBCASE("another leads") {
      world.changes.set_leader(nullptr);
    }
    world.pass(10s);
    CHECK(world.error() == Errc::outcome_unknown);
  }
  SUBCASE("never sent") {
    world.changes.set_leader(&far_line);  // nobody is there
    world.ask(Change::promote(NodeId{3}), 5s);
    world.pass(10s);
    CHECK(world.error() == Errc::timeout);
  }
  SUBCASE("no leader") {
    world.ask(Change::promote(NodeId{3}), 5s);
    world.scheduler.run_for(10s);
    world.changes.tick(world.scheduler.now(), false);
    CHECK(world.error() == Errc::no_leader);
  }
}

TEST_CASE("a member that was removed has what it asked for, if that was it") {
  World world(3);
  world.ask(Change::remove(NodeId{1}));
  std::optional<Result<void>> other;
  world.changes.add({Change::remove(NodeId{2}), 10s, [&](Result<void> ended) { other = std::move(ended); }});
  world.changes.end_removed();
  REQUIRE(world.result);
  CHECK(world.result->has_value());
  CHECK_FALSE(other);
  world.changes.end_all(Error(Errc::removed));
  REQUIRE(other);
  CHECK(other->error() == Errc::removed);
}

TEST_CASE("leadership has passed when a later term has another leader, or the wanted one") {
  World world(3);
  const auto led_by = [&](std::uint64_t leader, std::uint64_t term) {
    world.core.step(raft::Message{NodeId{leader}, NodeId{1}, Term{term}, raft::Heartbeat{}});
    world.work();
  };
  led_by(2, 2);
  SUBCASE("to any") {
    world.ask(Change::transfer(std::nullopt));
    world.advance();
    CHECK_FALSE(world.result);
    led_by(2, 3);
    world.advance();
    CHECK_FALSE(world.result);
    led_by(3, 4);
    world.advance();
    REQUIRE(world.result);
    CHECK(world.result->has_value());
  }
  SUBCASE("to one") {
    world.ask(Change::transfer(NodeId{3}));
    world.advance();
    CHECK_FALSE(world.result);
    led_by(3, 3);
    world.advance();
    REQUIRE(world.result);
    CHECK(world.result->has_value());
  }
}

TEST_SUITE_END();
