#include <algorithm>
#include <atomic>
#include <future>
#include <set>

#include "base/codec.hpp"
#include "db_fixture.hpp"
#include "net/link.hpp"
#include "net/port.hpp"

using namespace flotilla;
using namespace flotilla::test;
using namespace std::chrono_literals;

namespace {

const NodeId nobody{77};
constexpr CallOptions soon{.timeout = 300ms};

/// Long enough that nobody is elected by silence while a test looks.
void slow_elections(Options& options) {
  options.election_timeout = 3s;
}

std::optional<Member> line_of(DB& db, NodeId id) {
  const auto members = db.status().members;
  const auto at = std::find_if(members.begin(), members.end(), [id](const Member& line) { return line.id == id; });
  return at == members.end() ? std::nullopt : std::optional(*at);
}

std::set<std::uint64_t> voters_of(DB& db) {
  std::set<std::uint64_t> voters;
  for (const Member& line : db.status().members) {
    if (line.voter) voters.insert(line.id.value);
  }
  return voters;
}

void check_ok(const Result<void>& result) {
  CHECK_MESSAGE(result.has_value(), (result ? std::string() : result.error().message()));
}

void check_refused(const Result<void>& result, std::string_view reason) {
  REQUIRE_FALSE(result);
  CHECK(result.error() == Errc::invalid_argument);
  CHECK_MESSAGE(result.error().message().find(reason) != std::string::npos, result.error().message());
}

/// Waits until the member has stopped because it was removed.
void eventually_removed(DB& db) {
  eventually([&] { return db.status().fault.has_value(); });
  CHECK(*db.status().fault == Errc::removed);
}

}  // namespace

TEST_SUITE_BEGIN("node.db.members");

TEST_CASE("a learner that was asked for stays one, holds everything, and votes once promoted") {
  Cluster cluster(1);
  const std::size_t learner = cluster.add_learner();
  REQUIRE(cluster[0].command("put", {"a", "1"}).get());
  eventually([&] { return get(cluster[learner], "a") == "1"; });
  eventually([&] {
    const auto progress = cluster[0].status().progress;
    return progress.size() == 1 && progress[0].caught_up;
  });
  CHECK_FALSE(line_of(cluster[0], cluster.id(learner))->voter);
  CHECK_FALSE(line_of(cluster[0], cluster.id(learner))->joining);
  SUBCASE("asked of the leader") {
    check_ok(cluster[0].promote(cluster.id(learner)).get());
    CHECK(line_of(cluster[0], cluster.id(learner))->voter);
  }
  SUBCASE("asked of the learner") {
    check_ok(cluster[learner].promote(cluster.id(learner)).get());
    CHECK(line_of(cluster[learner], cluster.id(learner))->voter);
  }
  check_ok(cluster[0].promote(cluster.id(learner)).get());  // it is so already
  REQUIRE(cluster[learner].command("put", {"a", "2"}).get());
}

TEST_CASE("each change may be asked of any member, and has happened there when it succeeds") {
  // Asked of a leader: a busy machine must not take it away in the middle.
  Cluster cluster(3, slow_elections);
  for (const bool ask_leader : {true, false}) {
    CAPTURE(ask_leader);
    const auto asked = [&]() -> DB& { return cluster[ask_leader ? cluster.leader() : cluster.follower()]; };
    const NodeId id{ask_leader ? 77u : 78u};
    const Address address = ask_leader ? "127.0.0.1:1" : "127.0.0.1:2";
    DB& first = asked();
    check_ok(first.add_learner(id, address).get());
    CHECK(line_of(first, id) == Member{id, address, false});
    check_ok(first.add_learner(id, address).get());
    check_ok(first.add_learner(id, "127.0.0.1:3").get());  // moved
    CHECK(line_of(first, id)->address == "127.0.0.1:3");
    const auto promoted = first.promote(id, soon).get();
    REQUIRE_FALSE(promoted);
    CHECK(promoted.error() == Errc::timeout);
    CHECK(promoted.error().message().find("entries behind") != std::string::npos);
    check_ok(first.remove(id).get());
    CHECK_FALSE(line_of(first, id));
    check_ok(first.remove(id).get());
    check_refused(first.add_learner(id, address).get(), "was removed before");

    const NodeId old = cluster[0].leader()->id;
    const auto given = asked().transfer_leadership().get();
    check_ok(given);
    eventually([&] { return cluster.id(cluster.leader()) != old; });
    DB& second = asked();
    const NodeId to = cluster.id(cluster.follower());
    check_ok(second.transfer_leadership(to).get());
    eventually([&] { return cluster.id(cluster.leader()) == to; });
    check_ok(asked().transfer_leadership(to).get());  // it is so already
    REQUIRE(second.command("append", {"k", "x"}).get());
  }
}

TEST_CASE("a removed member learns it, stops, and does not come back under its id") {
  Cluster cluster(3);
  const std::size_t follower = cluster.follower();
  const NodeId removed = cluster.id(follower);
  std::size_t rest = cluster.leader();
  SUBCASE("removed by another") {
    check_ok(cluster[rest].remove(removed).get());
  }
  SUBCASE("removed by itself") {
    check_ok(cluster[follower].remove(removed).get());
  }
  SUBCASE("leading, removed by another") {
    check_ok(cluster[follower].transfer_leadership(removed).get());
    check_ok(cluster[rest].remove(removed).get());
  }
  SUBCASE("leading, removed by itself") {
    check_ok(cluster[follower].transfer_leadership(removed).get());
    check_ok(cluster[follower].remove(removed).get());
  }
  eventually_removed(cluster[follower]);
  const auto refused = cluster[follower].command("put", {"a", "1"}).get();
  REQUIRE_FALSE(refused);
  CHECK(refused.error() == Errc::stopped);
  REQUIRE(cluster[rest].command("put", {"a", "1"}).get());
  CHECK(voters_of(cluster[rest]).size() == 2);
  CHECK_FALSE(line_of(cluster[rest], removed));
  cluster.stop(follower);
  const auto again = DB::open(cluster.options(follower), test_commands());
  REQUIRE_FALSE(again);
  CHECK(again.error() == Errc::removed);
  check_refused(cluster[rest].add_learner(removed, cluster.options(follower).listen).get(), "was removed before");
}

TEST_CASE("a member that was away when it was removed is told when it comes back, and disturbs nobody") {
  Cluster cluster(3);
  const std::size_t away = cluster.follower();
  const NodeId removed = cluster.id(away);
  cluster.stop(away);
  const std::size_t leader = cluster.leader();
  check_ok(cluster[leader].remove(removed).get());
  const Term term = cluster[leader].status().term;
  cluster.start(away);
  eventually_removed(cluster[away]);
  CHECK(cluster[leader].status().term == term);
  CHECK_FALSE(line_of(cluster[leader], removed));
}

TEST_CASE("a leader without space hands over, and the cluster goes on") {
  Cluster cluster(3);
  const std::size_t leader = cluster.leader();
  cluster.stop(leader);
  cluster.options(leader).disk_reserve_bytes = std::uint64_t{1} << 60;
  cluster.start(leader);
  const NodeId full = cluster.id(leader);
  const std::size_t other = (leader + 1) % 3;
  eventually([&] { return cluster[leader].status().refusing.has_value(); });
  check_ok(cluster[other].transfer_leadership(full).get());
  eventually([&] {
    const auto now = cluster[other].leader();
    return now && now->id != full && cluster[other].command("put", {"a", "1"}).get();
  });
  REQUIRE(cluster[leader].command("put", {"a", "2"}).get());  // it only leads no more
}

TEST_CASE("a removed leader hands over, so that no election timeout passes") {
  Cluster cluster(3, slow_elections);
  const std::size_t leader = cluster.leader();
  const std::size_t other = cluster.follower();
  const auto begin = std::chrono::steady_clock::now();
  check_ok(cluster[other].remove(cluster.id(leader)).get());
  REQUIRE(cluster[other].command("put", {"a", "1"}).get());
  CHECK(std::chrono::steady_clock::now() - begin < 3s);  // what an election takes at least
  CHECK(voters_of(cluster[other]).size() == 2);
}

TEST_CASE("a removed leader hands over while commands come, so that no election timeout passes") {
  Cluster cluster(3, slow_elections);
  const std::size_t leader = cluster.leader();
  const std::size_t other = cluster.follower();
  std::atomic<bool> removed = false;
  std::atomic<int> rounds = 0;
  const auto write = [&](DB& db) {
    for (int i = 0; i < 100'000 && !removed; ++i) {
      std::vector<std::future<Result<Bytes>>> calls;
      for (int k = 0; k < 8; ++k) calls.push_back(db.command("put", {"a", "1"}));
      for (auto& call : calls) static_cast<void>(call.get());
      ++rounds;
    }
  };
  auto one = std::async(std::launch::async, [&] { write(cluster[other]); });
  auto two = std::async(std::launch::async, [&] { write(cluster[3 - leader - other]); });
  eventually([&] { return rounds >= 40; });
  const auto begin = std::chrono::steady_clock::now();
  check_ok(cluster[other].remove(cluster.id(leader)).get());
  removed = true;
  REQUIRE(cluster[other].command("put", {"a", "1"}).get());
  CHECK(std::chrono::steady_clock::now() - begin < 3s);  // what an election takes at least
}

TEST_CASE("a leader that is closed hands over, so that no election timeout passes") {
  Cluster cluster(3, slow_elections);
  const std::size_t leader = cluster.leader();
  const std::size_t other = cluster.follower();
  const auto begin = std::chrono::steady_clock::now();
  REQUIRE(cluster[leader].close());
  REQUIRE(cluster[other].command("put", {"a", "1"}).get());
  const auto pause = std::chrono::steady_clock::now() - begin;
  MESSAGE("closing the leader and the next command took ",
          std::chrono::duration_cast<std::chrono::milliseconds>(pause).count(), " ms");
  CHECK(pause < 3s);
}

TEST_CASE("a dead member is replaced by a new one in one change") {
  Cluster cluster(3);
  const std::size_t dead = cluster.follower();
  const NodeId old = cluster.id(dead);
  for (int i = 0; i < 20; ++i) REQUIRE(cluster[dead].command("append", {"k", "x"}).get());
  cluster.stop(dead);
  const std::size_t fresh = cluster.add_learner();
  const std::size_t asked = cluster.follower() == fresh ? cluster.leader() : cluster.follower();
  check_ok(cluster[asked].replace(old, {cluster.id(fresh), cluster[fresh].status().listen, true}).get());
  CHECK_FALSE(line_of(cluster[asked], old));
  CHECK(line_of(cluster[asked], cluster.id(fresh))->voter);
  CHECK(voters_of(cluster[asked]).size() == 3);
  check_ok(cluster[asked].replace(old, {cluster.id(fresh), cluster[fresh].status().listen, true}).get());
  REQUIRE(cluster[fresh].command("append", {"k", "x"}).get());
  CHECK(get(cluster[fresh], "k").size() == 21);
}

TEST_CASE("three members become five and three others again, each in one change") {
  Cluster cluster(3);
  cluster.add_learner();
  cluster.add_learner();
  std::vector<Member> all;
  for (std::size_t i = 0; i < 5; ++i) all.push_back({cluster.id(i), cluster[i].status().listen, true});
  DB& follower = cluster[cluster.follower()];
  check_ok(follower.change_members(all).get());
  CHECK(voters_of(follower).size() == 5);
  for (std::size_t i = 0; i < 5; ++i) REQUIRE(cluster[i].command("append", {"k", "x"}).get());
  const std::size_t leader = cluster.leader();
  // The leader goes, and one more.
  const std::size_t also = leader == 0 ? 1 : 0;
  std::vector<Member> three;
  for (std::size_t i = 0; i < 5; ++i) {
    if (i != leader && i != also) three.push_back(all[i]);
  }
  DB& stays = cluster[leader == 4 ? 3 : 4];
  check_ok(stays.change_members(three).get());
  CHECK(voters_of(stays).size() == 3);
  CHECK(stays.status().members.size() == 3);
  eventually_removed(cluster[leader]);
  eventually_removed(cluster[also]);
  CHECK(stays.command("append", {"k", "x"}).get().value().size() == 6);
}

TEST_CASE("changes asked of several members at once are all carried out, one after the other") {
  Cluster cluster(3);
  std::vector<std::future<Result<void>>> changes;
  for (std::uint64_t id = 80; id < 92; ++id) {
    changes.push_back(cluster[id % 3].add_learner(NodeId{id}, "127.0.0.1:" + std::to_string(id)));
  }
  for (auto& change : changes) check_ok(change.get());
  const auto index = cluster[0].barrier().get();
  REQUIRE(index);
  CHECK(cluster[0].status().members.size() == 15);
}

TEST_CASE("a change asked for while the leader goes away is carried out by the next") {
  Cluster cluster(3);
  for (int round = 0; round < 3; ++round) {
    const std::size_t leader = cluster.leader();
    const std::size_t other = cluster.follower();
    const NodeId id{80u + static_cast<unsigned>(round)};
    auto added = cluster[other].add_learner(id, "127.0.0.1:" + std::to_string(id.value));
    cluster.stop(leader);
    check_ok(added.get());
    CHECK(line_of(cluster[other], id));
    cluster.start(leader);
  }
}

TEST_CASE("without a majority a change ends by its deadline and says what is certain") {
  Cluster cluster(3);
  const std::size_t left = cluster.follower();
  for (std::size_t i = 0; i < 3; ++i) {
    if (i != left) cluster.stop(i);
  }
  eventually([&] { return !cluster[left].leader() || cluster[left].is_leader(); });
  const auto begin = std::chrono::steady_clock::now();
  const auto result = cluster[left].add_learner(nobody, "127.0.0.1:1", soon).get();
  CHECK(std::chrono::steady_clock::now() - begin < 5s);
  REQUIRE_FALSE(result);
  CHECK((result.error() == Errc::no_leader || result.error() == Errc::timeout ||
         result.error() == Errc::outcome_unknown));
}

TEST_CASE("a change that would leave no live majority waits, and is refused by its deadline") {
  Cluster cluster(3);
  const std::size_t leader = cluster.leader();
  const std::size_t other = cluster.follower();
  const std::size_t third = 3 - leader - other;
  const NodeId alive = cluster.id(other);
  cluster.stop(third);
  eventually([&] {
    const auto progress = cluster[leader].status().progress;
    return std::any_of(progress.begin(), progress.end(), [&](auto& line) { return line.silent > 1s; });
  });
  const auto result = cluster[leader].remove(alive, soon).get();
  REQUIRE_FALSE(result);
  CHECK(result.error() == Errc::timeout);
  CHECK(result.error().message().find("no majority") != std::string::npos);
  CHECK(line_of(cluster[leader], alive));
}

TEST_CASE("every change ends when the database is closed, and later ones are refused") {
  Cluster cluster(1);
  auto added = cluster[0].add_learner(nobody, "127.0.0.1:1");
  check_ok(added.get());
  auto promoted = cluster[0].promote(nobody);  // it never catches up
  REQUIRE(cluster[0].close());
  const auto result = promoted.get();
  REQUIRE_FALSE(result);
  CHECK(result.error() == Errc::shutting_down);
  CHECK(cluster[0].remove(nobody).get().error() == Errc::shutting_down);
}

TEST_CASE("a change waited for in a completion says that it would deadlock") {
  Cluster cluster(1);
  std::promise<Errc> seen;
  cluster[0].command("put", {"a", "1"}, [&](const Result<Bytes>&) {
    const auto result = cluster[0].remove(nobody).get();
    seen.set_value(result ? Errc{} : static_cast<Errc>(result.error().code().value()));
  });
  CHECK(seen.get_future().get() == Errc::would_deadlock);
}

TEST_CASE("bad input is refused with the reason, and changes nothing") {
  Cluster cluster(2);
  DB& db = cluster[1];  // forwarded, mostly
  eventually([&] { return voters_of(db).size() == 2; });
  const Member first = *line_of(db, cluster.id(0));
  const Member second = *line_of(db, cluster.id(1));
  const auto before = db.status().members;
  check_refused(db.promote(nobody).get(), "is no member");
  check_refused(db.add_learner(nobody, first.address).get(), "is the address of");
  check_refused(db.add_learner(nobody, "").get(), "no address");
  check_refused(db.add_learner(nobody, Address(600, 'a')).get(), "too long");
  check_refused(db.add_learner(NodeId{}, "127.0.0.1:1").get(), "no node id");
  check_refused(db.add_learner(first.id, first.address).get(), "is a voter");
  check_refused(db.replace(nobody, {NodeId{78}, "127.0.0.1:1", true}).get(), "is no member");
  check_refused(db.replace(first.id, first).get(), "itself");
  check_refused(db.change_members({}).get(), "needs a voter");
  check_refused(db.change_members({first, first, second}).get(), "named twice");
  check_refused(db.change_members({{first.id, first.address, false}}).get(), "needs a voter");
  check_refused(db.change_members({first, {second.id, first.address, true}}).get(), "is the address of");
  std::vector<Member> many;
  for (std::uint64_t id = 1; id <= 65; ++id) many.push_back({NodeId{id}, "h:" + std::to_string(id), true});
  check_refused(db.change_members(many).get(), "at most 64");
  check_refused(db.transfer_leadership(nobody).get(), "is no voter");
  CHECK(db.status().members == before);
  check_ok(db.remove(nobody).get());

  Cluster one(1);
  check_refused(one[0].remove(one.id(0)).get(), "the last one cannot go");
  check_refused(one[0].transfer_leadership().get(), "no other voter");
  TempDir dir;
  auto embedded = DB::open(test_options(dir / "data"), test_commands());
  REQUIRE(embedded);
  check_refused(embedded->add_learner(nobody, "127.0.0.1:1").get(), "no address");
}

TEST_CASE("a member that comes back at another address is found there") {
  Cluster cluster(3);
  SUBCASE("one") {
    std::size_t moved = 0;
    SUBCASE("a follower") {
      moved = cluster.follower();
    }
    SUBCASE("the leader") {
      moved = cluster.leader();
    }
    const NodeId id = cluster.id(moved);
    const Address old = cluster.options(moved).listen;
    cluster.stop(moved);
    cluster.options(moved).listen = "127.0.0.1:0";
    cluster.start(moved);
    const Address now = cluster[moved].status().listen;
    CHECK(now != old);
    for (std::size_t i = 0; i < 3; ++i) {
      eventually([&] { return line_of(cluster[i], id)->address == now; });
    }
    REQUIRE(cluster[moved].command("put", {"a", "1"}).get());
  }
  SUBCASE("after all were down") {
    for (std::size_t i = 0; i < 3; ++i) cluster.stop(i);
    cluster.options(1).listen = "127.0.0.1:0";
    for (std::size_t i = 0; i < 3; ++i) cluster.start(i);
    const NodeId id = cluster.id(1);
    const Address now = cluster[1].status().listen;
    eventually([&] { return line_of(cluster[0], id)->address == now; });
    REQUIRE(cluster[1].command("put", {"a", "1"}).get());
  }
}

TEST_CASE("the leader's status says how far the others are") {
  Cluster cluster(3);
  const std::size_t leader = cluster.leader();
  const std::size_t follower = cluster.follower();
  REQUIRE(cluster[leader].command("put", {"a", "1"}).get());
  eventually([&] {
    const Status status = cluster[leader].status();
    return status.progress.size() == 2 && std::all_of(status.progress.begin(), status.progress.end(), [&](auto& line) {
             return line.caught_up && !line.rolled_back && line.match_index == status.last_index && line.silent < 1s;
           });
  });
  CHECK(cluster[follower].status().progress.empty());
  const NodeId gone = cluster.id(follower);
  cluster.stop(follower);
  eventually([&] {
    const auto progress = cluster[leader].status().progress;
    return std::any_of(progress.begin(), progress.end(),
                       [&](auto& line) { return line.id == gone && line.silent > 500ms && !line.caught_up; });
  });
}

TEST_CASE("a stranger with a member's id cannot move that member to another address (D18)") {
  Cluster cluster(3);
  const auto before = cluster[cluster.leader()].status().members;
  const NodeId victim = cluster.id(cluster.follower());
  const auto port = net::Port::start({}, [](const Error&) {});
  std::optional<net::Link> link;
  std::promise<Errc> answered;
  port->run_and_wait([&] {
    net::Link::Events events{.up =
                                 [&](const net::Hello&) {
                                   std::string body;
                                   Encoder(body).u64(victim.value).u8(0).bytes("127.0.0.1:9");
                                   net::Frame frame{.type = 1, .parts = {}};
                                   frame.parts.emplace_back(std::move(body));
                                   link->send(std::move(frame));
                                 },
                             .frame =
                                 [&](const net::ReceivedFrame& frame) {
                                   answered.set_value(static_cast<Errc>(Decoder(frame.body.view()).u32()));
                                   port->loop().post([&] { link.reset(); });
                                 },
                             .down = [](const Error&) {}};
    link.emplace(port->loop(), port->transport(),
                 net::Link::Options{.tag = net::admin_tag,
                                    .address = cluster[cluster.leader()].status().listen,
                                    .local = {{}, victim, 99, "127.0.0.1:9"},
                                    .log_sink = [](LogLevel, std::string_view) {}},
                 std::move(events));
  });
  CHECK(answered.get_future().get() == Errc::wrong_cluster);
  port->run_and_wait([&] { link.reset(); });
  port->stop();
  REQUIRE(cluster[0].command("put", {"k", "v"}).get());
  CHECK(cluster[cluster.leader()].status().members == before);
}

TEST_SUITE_END();
