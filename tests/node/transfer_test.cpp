// How a snapshot travels: sender and receiver in virtual time, and what a stranger may do to either.
#include <doctest/doctest.h>

#include <limits>
#include <map>
#include <optional>

#include "base/codec.hpp"
#include "db_fixture.hpp"
#include "net/support.hpp"
#include "node/snapshots.hpp"

using namespace flotilla;
using namespace flotilla::node;
using namespace flotilla::test;
using namespace std::chrono_literals;

namespace {

const ClusterId cluster{1, 2};

net::Hello hello_of(std::uint64_t node, const Address& address) {
  return {.cluster_id = cluster, .node_id = NodeId{node}, .incarnation = 1, .address = address};
}

struct World {
  SimScheduler scheduler{7};
  SimNetwork network{scheduler};
};

/// A data directory with a store whose log has `entries` noops after a configuration.
struct Place {
  TempDir dir;
  state::Directory directory = state::Directory::create(dir.path(), false).value();
  std::unique_ptr<state::Store> store;

  explicit Place(std::size_t map_size = 16u << 20) {
    state::StoreOptions options;
    options.directory = directory.path();
    options.map_size = map_size;
    options.sync = false;
    store = state::Store::open(options, test_commands()).value();
  }
  void write(std::uint64_t count, std::size_t bytes = 0) {
    for (std::uint64_t i = 0; i < count; ++i) {
      const Index index = store->applied_index().next();
      raft::Entry entry{.term = Term{2}, .index = index, .type = raft::EntryType::noop};
      if (index == Index{1}) {
        raft::Configuration configuration;
        configuration.members.push_back({NodeId{1}, "sender:1", true});
        entry.type = raft::EntryType::configuration;
        entry.payload = SharedBytes(raft::encode(configuration));
      } else if (bytes > 0) {
        const std::string key = std::to_string(index.value);
        const std::string value(bytes, 'x');
        const std::string_view args[] = {key, value};
        entry.type = raft::EntryType::command;
        entry.payload = state::encode_command({}, 0, "put", args);
      }
      REQUIRE(store->apply({&entry, 1}));
    }
  }
};

struct Sender {
  Host host;
  SimLoop bulk;
  Place place;
  std::map<NodeId, std::vector<raft::SnapshotMeta>> sent;
  std::map<NodeId, int> failed;
  std::optional<SnapshotSender> sender;

  explicit Sender(World& world, const std::string& name = "sender", std::uint64_t id = 1)
      : host(world.network, world.scheduler, name), bulk(world.scheduler) {
    sender.emplace(
        host.loop, bulk, host.transport, *place.store, place.directory,
        SnapshotSender::Options{.local = hello_of(id, name + ":1"), .log_sink = [](LogLevel, std::string_view) {}},
        SnapshotSender::Events{
            .sent = [this](NodeId peer, const raft::SnapshotMeta& meta) { sent[peer].push_back(meta); },
            .failed = [this](NodeId peer) { ++failed[peer]; }});
  }
};

struct Receiver {
  Host host;
  SimLoop bulk;
  net::Mux mux;
  Place place;
  Term term{2};
  NodeId leader;  ///< 0: any
  std::optional<SnapshotReceiver> receiver;

  bool holds_files() const { return std::filesystem::exists(place.directory.incoming()); }

  explicit Receiver(World& world, const std::string& name = "receiver", std::uint64_t bytes_max = 1u << 30)
      : host(world.network, world.scheduler, name), bulk(world.scheduler), mux(host.loop, host.transport, {}) {
    REQUIRE(mux.listen(name + ":1"));
    receiver.emplace(host.loop, bulk, mux, place.directory,
                     SnapshotReceiver::Options{.local = hello_of(9, name + ":1"),
                                               .bytes_max = bytes_max,
                                               .sync = false,
                                               .log_sink = [](LogLevel, std::string_view) {}},
                     SnapshotReceiver::Ask{.term = [this] { return term; },
                                           .may_be_leader = [this](NodeId id) { return !leader || id == leader; }});
  }
};

using Known = SnapshotSender::Peer;
std::optional<Known> waiting(NodeId) {
  return Known{.needs_snapshot = true};
}
std::optional<Known> content(NodeId) {
  return Known{};
}

const Member receiver_member{NodeId{9}, "receiver:1", true};

/// A peer that speaks frames by hand.
struct Stranger {
  std::optional<net::Link> link;
  bool up = false;
  int downs = 0;
  std::vector<std::string> answers;

  Stranger(World& world, Host& host, std::uint64_t id) {
    net::Link::Options options{.tag = net::snapshot_tag,
                               .address = "receiver:1",
                               .local = hello_of(id, "stranger:1"),
                               .expected = NodeId{9},
                               .log_sink = [](LogLevel, std::string_view) {}};
    link.emplace(
        host.loop, host.transport, std::move(options),
        net::Link::Events{.up = [this](const net::Hello&) { up = true; },
                          .frame = [this](net::ReceivedFrame frame) { answers.emplace_back(frame.body.view()); },
                          .down = [this](const Error&) { ++downs; }});
    REQUIRE(world.scheduler.run_until([&] { return up; }, 10s));
  }
  void begin(std::uint64_t term, std::uint64_t index, std::uint64_t bytes) {
    std::string body;
    Encoder(body).u64(term).u64(index).u64(2).u64(bytes).u64(0).u64(0);
    REQUIRE(link->send(frame_of(1, body)));
  }
  void chunk(std::uint64_t offset, std::size_t bytes) {
    std::string body;
    Encoder(body).u64(offset).raw(std::string(bytes, 'x'));
    REQUIRE(link->send(frame_of(2, body)));
  }
  int state() const { return answers.empty() ? -1 : answers.back().at(0); }
};

}  // namespace

TEST_SUITE_BEGIN("node.transfer");

TEST_CASE("a snapshot of many chunks arrives over a slow network, and may be taken once") {
  World world;
  world.network.weather.chunk_max = 5000;
  world.network.weather.latency_max = 5ms;
  Sender from(world);
  Receiver to(world);
  from.place.write(400, 4000);
  from.sender->send(receiver_member, Term{2}, Index{1});
  REQUIRE(world.scheduler.run_until([&] { return !from.sent.empty() || !from.failed.empty(); }, 60s));
  REQUIRE(from.sent[NodeId{9}].size() == 1);
  CHECK(from.sent[NodeId{9}][0].index == Index{400});
  CHECK(from.sender->first_needed() == Index{400});
  CHECK_FALSE(to.receiver->take(Index{401}));
  const auto taken = to.receiver->take(Index{400});
  REQUIRE(taken);
  CHECK(taken->index == Index{400});
  CHECK_FALSE(to.receiver->take(Index{400}));
  // The log is free as soon as nobody waits for what follows it.
  from.sender->tick(waiting);
  CHECK(from.sender->first_needed());
  from.sender->tick(content);
  CHECK_FALSE(from.sender->first_needed());
  CHECK(from.sender->idle());
}

TEST_CASE("one copy serves all who ask at the time, unless the log has gone on past it") {
  World world;
  Sender from(world);
  Receiver to(world);
  Receiver other(world, "other");
  from.place.write(10);
  from.sender->send(receiver_member, Term{2}, Index{1});
  REQUIRE(world.scheduler.run_until([&] { return from.sent.size() == 1; }, 60s));
  from.place.write(10);
  from.sender->send({NodeId{9}, "other:1", true}, Term{2}, Index{10});
  REQUIRE(world.scheduler.run_until([&] { return from.sent[NodeId{9}].size() == 2; }, 60s));
  CHECK(from.sent[NodeId{9}][1].index == Index{10});  // shared
  from.sender->send(receiver_member, Term{2}, Index{11});
  REQUIRE(world.scheduler.run_until([&] { return from.sent[NodeId{9}].size() == 3; }, 60s));
  CHECK(from.sent[NodeId{9}][2].index == Index{20});
  // It is let go of when nobody has asked for a while.
  from.sender->tick(content);
  world.scheduler.run_for(61s);
  from.sender->tick(content);
  from.place.write(10);
  from.sender->send({NodeId{9}, "other:1", true}, Term{2}, Index{1});
  REQUIRE(world.scheduler.run_until([&] { return from.sent[NodeId{9}].size() == 4; }, 60s));
  CHECK(from.sent[NodeId{9}][3].index == Index{30});
}

TEST_CASE("the log is kept for a receiver until it follows, from where it got to, and not for ever") {
  World world;
  Sender from(world);
  Receiver to(world);
  from.place.write(100);
  from.sender->send(receiver_member, Term{2}, Index{1});
  REQUIRE(world.scheduler.run_until([&] { return from.sent.size() == 1; }, 60s));
  Known peer{.needs_snapshot = true};
  const auto tick = [&] { from.sender->tick([&](NodeId) { return std::optional<Known>(peer); }); };
  tick();
  CHECK(from.sender->first_needed() == Index{100});
  peer = {.needs_snapshot = false, .lags = true, .matched = Index{100}};
  tick();
  CHECK(from.sender->first_needed() == Index{100});
  peer.matched = Index{150};
  tick();
  CHECK(from.sender->first_needed() == Index{150});
  SUBCASE("it catches up") {
    peer.lags = false;
    tick();
    CHECK_FALSE(from.sender->first_needed());
  }
  SUBCASE("it stands still") {
    world.scheduler.run_for(61s);
    tick();
    CHECK_FALSE(from.sender->first_needed());
  }
  SUBCASE("the log grows too large") {
    from.sender->end_all("too large");
    CHECK_FALSE(from.sender->first_needed());
  }
  CHECK(from.failed.empty());  // its snapshot is installed; what is left is the core's
  SUBCASE("it is no peer any more") {
    from.sender->send(receiver_member, Term{2}, Index{1});
    from.sender->tick([](NodeId) { return std::nullopt; });
    CHECK(from.sender->idle());
  }
}

TEST_CASE("who cannot be reached costs no copy, and is tried less and less often") {
  World world;
  Sender from(world);
  from.place.write(10);
  std::vector<Duration> failed_at;
  while (failed_at.size() < 10) {
    from.sender->send(receiver_member, Term{2}, Index{1});
    const int before = from.failed[NodeId{9}];
    while (from.failed[NodeId{9}] == before) {
      world.scheduler.run_for(100ms);
      from.sender->tick(waiting);
      REQUIRE(world.scheduler.now() < 10min);
    }
    failed_at.push_back(world.scheduler.now());
  }
  CHECK(failed_at[1] - failed_at[0] >= 1s);
  CHECK(failed_at[4] - failed_at[3] >= 8s);
  CHECK(failed_at[9] - failed_at[8] >= 32s);
  CHECK(failed_at[9] - failed_at[8] < 45s);
}

TEST_CASE("no connection, no snapshot: it fails, and may be asked for again") {
  World world;
  Sender from(world);
  from.place.write(10);
  from.sender->send(receiver_member, Term{2}, Index{1});
  REQUIRE(world.scheduler.run_until([&] { return from.failed[NodeId{9}] == 1; }, 60s));
  CHECK(from.sender->idle());
  Receiver to(world);
  from.sender->send(receiver_member, Term{2}, Index{1});
  for (int second = 0; second < 5; ++second) {
    world.scheduler.run_for(1s);
    from.sender->tick(waiting);
  }
  CHECK(from.sent.size() == 1);
}

TEST_CASE("a receiver that says nothing for a minute is given up") {
  World world;
  Sender from(world);
  Receiver to(world);
  from.place.write(100, 4000);
  world.scheduler.pause(&to.bulk, world.scheduler.now() + 10min);
  from.sender->send(receiver_member, Term{2}, Index{1});
  for (int second = 0; second < 55; ++second) {
    world.scheduler.run_for(1s);
    from.sender->tick(waiting);
  }
  CHECK(from.failed.empty());
  for (int second = 0; second < 15; ++second) {
    world.scheduler.run_for(1s);
    from.sender->tick(waiting);
  }
  CHECK(from.failed[NodeId{9}] == 1);
  CHECK(from.sender->idle());
}

TEST_CASE("the sender may end at any moment") {
  World world;
  world.network.weather.chunk_max = 5000;
  world.network.weather.latency_max = 2ms;
  for (int steps = 0; steps < 400; steps += 7) {
    Sender from(world, "sender" + std::to_string(steps));
    Receiver to(world, "receiver" + std::to_string(steps));
    from.place.write(30, 4000);
    from.sender->send({NodeId{9}, "receiver" + std::to_string(steps) + ":1", true}, Term{2}, Index{1});
    for (int step = 0; step < steps; ++step) world.scheduler.step();
    if (steps % 2 == 0) {
      from.sender.reset();
      world.scheduler.run_for(2s);
    } else {
      to.receiver.reset();
      world.scheduler.run_for(2s);
    }
  }
}

TEST_CASE("what cannot be is refused or dropped, and the receiver goes on") {
  World world;
  Receiver to(world, "receiver", 1u << 20);
  Host host(world.network, world.scheduler, "stranger");
  Stranger stranger(world, host, 5);
  SUBCASE("from one who does not lead") {
    to.leader = NodeId{6};
    stranger.begin(2, 10, 100);
    REQUIRE(world.scheduler.run_until([&] { return !stranger.answers.empty(); }, 10s));
    CHECK(stranger.state() == 2);
  }
  SUBCASE("two at once on one connection") {
    stranger.begin(2, 10, 100);
    stranger.begin(2, 10, 100);
  }
  SUBCASE("a connection that ends in the middle") {
    stranger.begin(2, 10, 1000);
    REQUIRE(world.scheduler.run_until([&] { return stranger.state() == 0; }, 10s));
    stranger.chunk(0, 500);
    REQUIRE(world.scheduler.run_until([&] { return stranger.answers.size() == 2; }, 10s));
    CHECK(to.holds_files());
    world.network.reset("stranger", "receiver");
  }
  SUBCASE("larger than this member has room for") {
    stranger.begin(2, 10, (1u << 20) + 1);
    REQUIRE(world.scheduler.run_until([&] { return !stranger.answers.empty(); }, 10s));
    CHECK(stranger.state() == 2);
  }
  SUBCASE("larger than there are numbers") {
    stranger.begin(2, 10, std::numeric_limits<std::uint64_t>::max());
    REQUIRE(world.scheduler.run_until([&] { return !stranger.answers.empty(); }, 10s));
    CHECK(stranger.state() == 2);
  }
  SUBCASE("of an earlier term") {
    stranger.begin(1, 10, 100);
    REQUIRE(world.scheduler.run_until([&] { return !stranger.answers.empty(); }, 10s));
    CHECK(stranger.state() == 2);
  }
  SUBCASE("while another is being installed") {
    Sender from(world);
    from.place.write(10);
    from.sender->send(receiver_member, Term{2}, Index{1});
    REQUIRE(world.scheduler.run_until([&] { return from.sent.size() == 1; }, 60s));
    REQUIRE(to.receiver->take(Index{10}));
    stranger.begin(2, 10, 100);
    REQUIRE(world.scheduler.run_until([&] { return !stranger.answers.empty(); }, 10s));
    CHECK(stranger.state() == 2);
    CHECK(to.holds_files());  // it is being installed
    std::filesystem::remove_all(to.place.directory.incoming());
    to.receiver->release();
  }
  SUBCASE("a chunk out of nothing") {
    stranger.chunk(0, 10);
  }
  SUBCASE("no bytes at all") {
    stranger.begin(2, 10, 0);
  }
  SUBCASE("index 0") {
    stranger.begin(2, 0, 100);
  }
  SUBCASE("a begin that is too short") {
    REQUIRE(stranger.link->send(frame_of(1, "x")));
  }
  SUBCASE("a frame of no known type") {
    REQUIRE(stranger.link->send(frame_of(9, "x")));
  }
  SUBCASE("a hole") {
    stranger.begin(2, 10, 1000);
    REQUIRE(world.scheduler.run_until([&] { return stranger.state() == 0; }, 10s));
    stranger.chunk(1, 10);
  }
  SUBCASE("past the announced end") {
    stranger.begin(2, 10, 100);
    REQUIRE(world.scheduler.run_until([&] { return stranger.state() == 0; }, 10s));
    stranger.chunk(0, 101);
  }
  SUBCASE("more than was asked for, while the disk stands still") {
    stranger.begin(2, 10, 1u << 20);
    REQUIRE(world.scheduler.run_until([&] { return stranger.state() == 0; }, 10s));
    world.scheduler.pause(&to.bulk, world.scheduler.now() + 1s);
    for (std::uint64_t i = 0; i < 600; ++i) stranger.chunk(i * 1000, 1000);
    world.scheduler.run_for(100ms);
    CHECK(stranger.downs == 0);  // within the window
    stranger.chunk(600'001, 1000);
  }
  SUBCASE("another hash than announced") {
    stranger.begin(2, 10, 100);
    REQUIRE(world.scheduler.run_until([&] { return stranger.state() == 0; }, 10s));
    stranger.chunk(0, 100);
    REQUIRE(world.scheduler.run_until([&] { return stranger.answers.size() == 2; }, 10s));
    CHECK(stranger.state() == 2);
    CHECK_FALSE(to.receiver->take(Index{1}));
  }
  if (stranger.state() != 2) {
    REQUIRE(world.scheduler.run_until([&] { return stranger.downs > 0; }, 10s));
  }
  world.scheduler.run_for(2s);
  CHECK_FALSE(to.holds_files());  // nothing of it fills the disk
  // A proper one still arrives.
  Sender good(world, "good", 6);
  good.place.write(10);
  good.sender->send(receiver_member, Term{2}, Index{1});
  REQUIRE(world.scheduler.run_until([&] { return good.sent.size() == 1; }, 60s));
  CHECK(to.receiver->take(Index{10}));
}

TEST_CASE("a sender that does not wait for the disk is dropped before it fills the memory") {
  World world;
  Receiver to(world);
  Host host(world.network, world.scheduler, "stranger");
  Stranger stranger(world, host, 5);
  stranger.begin(2, 10, 64u << 20);
  REQUIRE(world.scheduler.run_until([&] { return stranger.state() == 0; }, 10s));
  world.scheduler.pause(&to.bulk, world.scheduler.now() + 1h);
  constexpr std::size_t chunk = 256u << 10;
  for (std::uint64_t i = 0; i < 8; ++i) {
    stranger.chunk(i * chunk, chunk);
    world.scheduler.run_for(100ms);
  }
  CHECK(stranger.downs == 0);
  stranger.chunk(8 * chunk, 1);
  REQUIRE(world.scheduler.run_until([&] { return stranger.downs > 0; }, 10s));
}

TEST_CASE("a newer leader's snapshot takes an older one's place, never the other way round") {
  World world;
  Receiver to(world);
  Host host(world.network, world.scheduler, "stranger");
  Stranger old_leader(world, host, 5);
  Stranger new_leader(world, host, 6);
  old_leader.begin(3, 10, 1000);
  REQUIRE(world.scheduler.run_until([&] { return old_leader.state() == 0; }, 10s));
  new_leader.begin(4, 20, 1000);
  REQUIRE(world.scheduler.run_until([&] { return new_leader.state() == 0 && old_leader.downs == 1; }, 10s));
  old_leader.up = false;
  REQUIRE(world.scheduler.run_until([&] { return old_leader.up; }, 10s));
  old_leader.begin(3, 10, 1000);
  REQUIRE(world.scheduler.run_until([&] { return old_leader.state() == 2; }, 10s));
  new_leader.chunk(0, 500);
  REQUIRE(world.scheduler.run_until([&] { return new_leader.answers.size() == 2; }, 10s));
  CHECK(new_leader.state() == 0);
}

TEST_CASE("a chunk counts only on the connection whose snapshot it is a part of (F7)") {
  World world;
  Receiver to(world);
  Host host(world.network, world.scheduler, "stranger");
  Stranger leader(world, host, 5);
  Stranger other(world, host, 6);
  leader.begin(2, 10, 1000);
  REQUIRE(world.scheduler.run_until([&] { return leader.state() == 0; }, 10s));
  other.chunk(0, 500);
  REQUIRE(world.scheduler.run_until([&] { return other.downs == 1; }, 10s));
  CHECK(leader.downs == 0);
  leader.chunk(0, 500);
  REQUIRE(world.scheduler.run_until([&] { return leader.answers.size() == 2; }, 10s));
  CHECK(leader.state() == 0);
  CHECK(other.answers.empty());
}

TEST_CASE("an answer that cannot be ends the transfer") {
  World world;
  Sender from(world);
  from.place.write(10);
  Host host(world.network, world.scheduler, "receiver");
  net::Mux mux(host.loop, host.transport, {});
  REQUIRE(mux.listen("receiver:1"));
  std::string answer;
  SUBCASE("malformed") {
    answer = "x";
  }
  SUBCASE("more than was sent") {
    Encoder(answer).u8(0).u64(1).bytes({});
  }
  SUBCASE("complete before it is") {
    Encoder(answer).u8(1).u64(0).bytes({});
  }
  SUBCASE("of no known state") {
    Encoder(answer).u8(3).u64(0).bytes({});
  }
  std::optional<net::LinkServer> server;
  server.emplace(
      host.loop, mux,
      net::LinkServer::Options{
          .tag = net::snapshot_tag, .local = hello_of(9, "receiver:1"), .log_sink = [](LogLevel, std::string_view) {}},
      net::LinkServer::Events{
          .up = [](auto, const net::Hello&) -> Result<void> { return {}; },
          .frame = [&](auto connection, const net::ReceivedFrame&) { server->send(connection, frame_of(3, answer)); },
          .down = [](auto, const Error&) {}});
  from.sender->send(receiver_member, Term{2}, Index{1});
  REQUIRE(world.scheduler.run_until([&] { return from.failed[NodeId{9}] == 1; }, 10s));
  CHECK(from.sent.empty());
}

TEST_CASE("a snapshot that nobody takes is removed") {
  World world;
  Sender from(world);
  Receiver to(world);
  from.place.write(10);
  from.sender->send(receiver_member, Term{2}, Index{1});
  REQUIRE(world.scheduler.run_until([&] { return from.sent.size() == 1; }, 60s));
  to.receiver->tick();
  world.scheduler.run_for(1s);
  CHECK(to.holds_files());
  world.scheduler.run_for(61s);
  to.receiver->tick();
  world.scheduler.run_for(1s);
  CHECK_FALSE(to.holds_files());
  CHECK_FALSE(to.receiver->take(Index{10}));
}

TEST_CASE("a snapshot of another moment than announced is refused") {
  World world;
  Receiver to(world);
  Place place;
  place.write(10);
  const auto copy = place.store->copy(place.dir / "copy").value();
  Host host(world.network, world.scheduler, "stranger");
  Stranger stranger(world, host, 5);
  std::string body;
  Encoder(body).u64(2).u64(11).u64(2).u64(copy.bytes()).u64(copy.hash().high).u64(copy.hash().low);
  REQUIRE(stranger.link->send(frame_of(1, body)));
  REQUIRE(world.scheduler.run_until([&] { return stranger.state() == 0; }, 10s));
  std::string chunk;
  Encoder(chunk).u64(0).raw(copy.read(0, copy.bytes()).value());
  REQUIRE(stranger.link->send(frame_of(2, chunk)));
  REQUIRE(world.scheduler.run_until([&] { return stranger.answers.size() == 2; }, 10s));
  CHECK(stranger.state() == 2);
  CHECK_FALSE(to.receiver->take(Index{1}));
}

TEST_SUITE_END();
