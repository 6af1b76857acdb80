#include "net/mux.hpp"

#include <doctest/doctest.h>

#include "net/support.hpp"

using namespace flotilla;
using namespace flotilla::test;
using namespace std::chrono_literals;
using flotilla::net::Mux;
using flotilla::net::MuxOptions;

namespace {

constexpr Tag echo_tag = 0x80;

struct World {
  explicit World(MuxOptions options = {}, std::uint64_t seed = 1)
      : scheduler(seed), mux(server.loop, server.transport, std::move(options)) {
    REQUIRE(mux.listen("server:7000").has_value());
  }
  void collect(Tag tag) {
    REQUIRE(mux.add(tag,
                    [this](auto connection, std::string initial) {
                      taken.push_back(std::make_unique<Peer>(std::move(connection)));
                      taken.back()->received = std::move(initial);
                    })
                .has_value());
  }
  std::unique_ptr<Peer> connect(std::string first) {
    auto peer = dial(scheduler, client, "server:7000");
    REQUIRE(peer);
    if (!first.empty()) peer->send(std::move(first));
    return peer;
  }
  void settle() { scheduler.run_for(100ms); }

  SimScheduler scheduler;
  SimNetwork network{scheduler};
  Host server{network, scheduler, "server"};
  Host client{network, scheduler, "client"};
  Mux mux;
  std::vector<std::unique_ptr<Peer>> taken;
};

}  // namespace

TEST_SUITE_BEGIN("net.mux");

TEST_CASE("a tagged service gets everything after its byte, a peeked one also the byte") {
  for (const std::size_t chunk : {std::size_t{1}, std::size_t{65536}}) {
    CAPTURE(chunk);
    World world;
    world.network.weather.chunk_max = chunk;
    world.collect(echo_tag);
    std::unique_ptr<Peer> http;
    REQUIRE(world.mux
                .add_peeked("GP",
                            [&](auto connection, std::string initial) {
                              http = std::make_unique<Peer>(std::move(connection));
                              http->received = std::move(initial);
                            })
                .has_value());
    const auto one = world.connect("\x80 hello");
    const auto two = world.connect("GET / HTTP/1.1");
    world.settle();
    REQUIRE(world.taken.size() == 1);
    CHECK(world.taken[0]->received == " hello");
    REQUIRE(http);
    CHECK(http->received == "GET / HTTP/1.1");
    CHECK(world.mux.stats().classified == 2);
    CHECK(world.mux.stats().open == 2);
  }
}

TEST_CASE("an unknown first byte closes that connection and is counted") {
  World world;
  world.collect(echo_tag);
  const auto stranger = world.connect("\x81garbage");
  const auto tls = world.connect("\x16\x03\x01");
  const auto friendly = world.connect("\x80");
  world.settle();
  CHECK(stranger->gone());
  CHECK(tls->gone());
  CHECK_FALSE(friendly->gone());
  CHECK(world.mux.stats().unknown_tag == 2);
  CHECK(world.mux.stats().open == 1);
}

TEST_CASE("a silent client is closed at its deadline and keeps nobody waiting") {
  World world({.classify_timeout = 2s});
  world.collect(echo_tag);
  const auto silent = world.connect("");
  world.scheduler.run_for(1s);
  const auto later = world.connect("");
  const auto talker = world.connect("\x80x");
  world.settle();
  CHECK(world.taken.size() == 1);
  CHECK_FALSE(silent->gone());
  world.scheduler.run_for(950ms);
  CHECK(silent->gone());
  CHECK_FALSE(later->gone());
  world.scheduler.run_for(1s);
  CHECK(later->gone());
  CHECK_FALSE(talker->gone());
  CHECK(world.mux.stats().classify_timeout == 2);
}

TEST_CASE("over the cap of unclassified connections the longest silent one goes") {
  World world({.unclassified_max = 3});
  world.collect(echo_tag);
  std::vector<std::unique_ptr<Peer>> silent;
  for (int count = 0; count < 5; ++count) {
    silent.push_back(world.connect(""));
    world.settle();
  }
  CHECK(silent[0]->gone());
  CHECK(silent[1]->gone());
  CHECK_FALSE(silent[2]->gone());
  CHECK(world.mux.stats().refused == 2);
  CHECK(world.mux.stats().open == 3);
  const auto talker = world.connect("\x80");
  world.settle();
  CHECK_FALSE(talker->gone());
  CHECK(world.taken.size() == 1);
}

TEST_CASE("the cap of connections holds, and a reserve of them is for peers alone") {
  World world({.connections_max = 4, .reserved_for_peers = 2});
  world.collect(echo_tag);
  std::vector<std::unique_ptr<Peer>> peers;
  REQUIRE(world.mux
              .add(net::raft_tag, [&](auto connection,
                                      std::string) { peers.push_back(std::make_unique<Peer>(std::move(connection))); })
              .has_value());
  std::vector<std::unique_ptr<Peer>> clients;
  for (int count = 0; count < 4; ++count) {
    clients.push_back(world.connect("\x80"));
    world.settle();
  }
  CHECK(world.taken.size() == 2);
  CHECK_FALSE(clients[1]->gone());
  CHECK(clients[2]->gone());
  CHECK(clients[3]->gone());
  for (int count = 0; count < 3; ++count) {
    clients.push_back(world.connect(std::string(1, '\0')));
    world.settle();
  }
  CHECK(peers.size() == 2);
  CHECK(clients.back()->gone());
  CHECK(world.mux.stats().open == 4);
  CHECK(world.mux.stats().refused == 3);

  world.taken.clear();  // places are given back
  world.settle();
  clients.push_back(world.connect("\x80"));
  world.settle();
  CHECK(world.taken.size() == 1);
}

TEST_CASE("silent connections cannot use up the reserve of peers") {
  World world({.connections_max = 4, .reserved_for_peers = 2});
  world.collect(echo_tag);
  world.collect(net::raft_tag);
  std::vector<std::unique_ptr<Peer>> clients;
  clients.push_back(world.connect("\x80"));
  clients.push_back(world.connect("\x80"));
  for (int count = 0; count < 6; ++count) clients.push_back(world.connect(""));
  world.settle();
  const auto peer = world.connect(std::string(1, '\0'));
  world.settle();
  CHECK_FALSE(peer->gone());
  CHECK(world.taken.size() == 3);
}

TEST_CASE("one address cannot take the places of the others") {
  World world({.connections_per_address_max = 2});
  world.collect(echo_tag);
  Host other(world.network, world.scheduler, "other");
  std::vector<std::unique_ptr<Peer>> clients;
  for (int count = 0; count < 3; ++count) {
    clients.push_back(world.connect("\x80"));
    world.settle();
  }
  CHECK(clients[2]->gone());
  CHECK(world.mux.stats().refused == 1);
  auto elsewhere = dial(world.scheduler, other, "server:7000");
  REQUIRE(elsewhere);
  elsewhere->send("\x80");
  world.settle();
  CHECK_FALSE(elsewhere->gone());
  CHECK(world.taken.size() == 3);
}

TEST_CASE("a failed accept is counted and listening goes on") {
  World world;
  world.collect(echo_tag);
  world.network.fail_accepts("server", 3);
  const auto client = world.connect("\x80x");
  world.scheduler.run_for(2s);
  CHECK(world.mux.stats().accept_errors == 3);
  CHECK(world.taken.size() == 1);
}

TEST_CASE("only free and allowed first bytes can be claimed") {
  World world;
  const net::ServiceHandler nothing = [](auto, auto) {};
  for (int byte = 0; byte < 256; ++byte) {
    CAPTURE(byte);
    const bool tagged = byte <= 0x08 || (byte >= 0x0e && byte <= 0x15) || byte >= 0x80;
    const bool peeked = byte >= 0x20 && byte <= 0x7f;
    const char first = static_cast<char>(byte);
    CHECK(world.mux.add(static_cast<Tag>(byte), nothing).has_value() == tagged);
    CHECK(world.mux.add_peeked(std::string_view(&first, 1), nothing).has_value() == peeked);
  }
  CHECK(world.mux.add(0x80, nothing).error() == Errc::invalid_argument);
  CHECK(world.mux.add_peeked("*", nothing).error() == Errc::invalid_argument);
  CHECK(world.mux.add_peeked("", nothing).error() == Errc::invalid_argument);
  world.mux.remove(0x80);
  CHECK(world.mux.add(0x80, nothing).has_value());
}

TEST_CASE("a removed service's later connections are unknown; a peeked one goes with all its bytes") {
  World world;
  world.collect(echo_tag);
  REQUIRE(world.mux.add_peeked("GP", [](auto, auto) { FAIL("removed"); }).has_value());
  const auto before = world.connect("\x80");
  world.settle();
  world.mux.remove(echo_tag);
  world.mux.remove('G');
  const auto after = world.connect("\x80");
  const auto post = world.connect("POST");
  world.settle();
  CHECK_FALSE(before->gone());
  CHECK(after->gone());
  CHECK(post->gone());
  CHECK(world.mux.stats().unknown_tag == 2);
}

TEST_CASE("a client that ends or breaks before its first byte leaves nothing behind") {
  World world;
  const auto ending = world.connect("");
  ending->connection->finish();
  auto dropping = world.connect("");
  dropping.reset();
  const auto breaking = world.connect("");
  world.settle();
  world.network.reset("client", "server");
  world.settle();
  CHECK(world.mux.stats().open == 0);
}

TEST_CASE("closing drops who has not said what it is and leaves the others alone") {
  World world;
  world.collect(echo_tag);
  const auto silent = world.connect("");
  const auto talker = world.connect("\x80");
  world.settle();
  world.mux.close();
  world.settle();
  CHECK(silent->gone());
  CHECK_FALSE(talker->gone());
  Error why(Errc::closed);
  CHECK_FALSE(dial(world.scheduler, world.client, "server:7000", &why));
  CHECK(why == Errc::io_error);
}

TEST_CASE("listening twice on one address is refused") {
  World world;
  Mux second(world.server.loop, world.server.transport, {});
  CHECK(second.listen("server:7000").error() == Errc::address_in_use);
  CHECK(world.mux.listen("server:7001").error() == Errc::invalid_argument);
}

TEST_SUITE_END();
