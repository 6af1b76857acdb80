#include "net/link.hpp"

#include <algorithm>

#include <doctest/doctest.h>

#include "base/codec.hpp"
#include "base/crc32c.hpp"
#include "net/frame.hpp"
#include "net/hello.hpp"
#include "net/support.hpp"

using namespace flotilla;
using namespace flotilla::net;
using namespace flotilla::test;
using namespace std::chrono_literals;

namespace {

const ClusterId our_cluster{1, 2};
const ClusterId other_cluster{3, 4};

Hello hello_of(std::uint64_t node, std::uint64_t incarnation = 1, ClusterId cluster = our_cluster) {
  return {.cluster_id = cluster, .node_id = NodeId{node}, .incarnation = incarnation, .address = "a:1"};
}

/// A member that listens: its mux, its server, and what that was told.
struct Listening {
  Listening(SimNetwork& network, SimScheduler& scheduler, const std::string& name, LinkServer::Options options)
      : host(network, scheduler, name), mux(host.loop, host.transport, {}) {
    REQUIRE(mux.listen(name + ":1").has_value());
    LinkServer::Events events{
        .up =
            [this](LinkServer::ConnectionId id, const Hello& peer) {
              ups.emplace_back(id, peer);
              return on_up ? on_up(id, peer) : Result<void>();
            },
        .frame =
            [this](LinkServer::ConnectionId id, ReceivedFrame frame) {
              frames.emplace_back(id, std::string(frame.body.view()));
              if (on_frame) on_frame(id, std::move(frame));
            },
        .down = [this](LinkServer::ConnectionId id, const Error& error) { downs.emplace_back(id, error); }};
    server.emplace(host.loop, mux, std::move(options), std::move(events));
  }
  Host host;
  Mux mux;
  std::optional<LinkServer> server;
  std::function<Result<void>(LinkServer::ConnectionId, const Hello&)> on_up;
  std::function<void(LinkServer::ConnectionId, ReceivedFrame)> on_frame;
  std::vector<std::pair<LinkServer::ConnectionId, Hello>> ups;
  std::vector<std::pair<LinkServer::ConnectionId, std::string>> frames;
  std::vector<std::pair<LinkServer::ConnectionId, Error>> downs;
};

/// A member that dials.
struct Dialling {
  Dialling(Host& host, Link::Options options) {
    Link::Events events{.up = [this](const Hello& peer) { ups.push_back(peer); },
                        .frame = [this](ReceivedFrame frame) { frames.emplace_back(frame.body.view()); },
                        .down =
                            [this, &host](const Error& error) {
                              downs.push_back(error);
                              down_at.push_back(host.loop.now());
                            }};
    link.emplace(host.loop, host.transport, std::move(options), std::move(events));
  }
  std::optional<Link> link;
  std::vector<Hello> ups;
  std::vector<std::string> frames;
  std::vector<Error> downs;
  std::vector<Duration> down_at;
};

struct World {
  SimScheduler scheduler{7};
  SimNetwork network{scheduler};
  Host near{network, scheduler, "near"};
};

}  // namespace

TEST_SUITE_BEGIN("net.link");

TEST_CASE("after the handshake both sides know each other and exchange frames in order") {
  for (const std::size_t chunk : {std::size_t{1}, std::size_t{5}, std::size_t{65536}}) {
    CAPTURE(chunk);
    World world;
    world.network.weather.chunk_max = chunk;
    Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
    far.on_frame = [&](LinkServer::ConnectionId id, ReceivedFrame frame) {
      CHECK(far.server->send(id, Frame{.type = frame.type, .parts = {frame.body}}));
    };
    Dialling link(world.near, {.address = "far:1", .local = hello_of(1), .expected = NodeId{2}});
    CHECK_FALSE(link.link->send(frame_of(1, "too early")));
    world.scheduler.run_for(1s);
    REQUIRE(link.link->up());
    REQUIRE(far.ups.size() == 1);
    CHECK(far.ups[0].second == hello_of(1));
    CHECK(link.ups == std::vector{hello_of(2)});
    std::vector<std::string> sent;
    for (int count = 0; count < 20; ++count) {
      sent.push_back(std::string(static_cast<std::size_t>(count) * 37, 'a'));
      CHECK(link.link->send(frame_of(1, sent.back())));
    }
    world.scheduler.run_for(5s);
    CHECK(link.frames == sent);
    CHECK(link.downs.empty());
    CHECK(far.server->connections() == 1);
  }
}

TEST_CASE("frames that the server sends while it admits a peer follow its own statement") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
  far.on_up = [&](LinkServer::ConnectionId id, const Hello&) {
    CHECK(far.server->send(id, frame_of(9, "welcome")));
    return Result<void>();
  };
  Dialling link(world.near, {.address = "far:1", .local = hello_of(1)});
  world.scheduler.run_for(1s);
  CHECK(link.ups.size() == 1);
  CHECK(link.frames == std::vector<std::string>{"welcome"});
}

TEST_CASE("a member of another cluster is refused with the reason") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2, 1, other_cluster)});
  Dialling link(world.near, {.address = "far:1", .local = hello_of(1)});
  world.scheduler.run_for(40ms);
  CHECK(far.ups.empty());
  CHECK_FALSE(link.link->up());
  REQUIRE(link.downs.size() == 1);
  CHECK(link.downs[0] == Errc::wrong_cluster);
  CHECK(link.downs[0].message().starts_with("refused by the other side"));
}

TEST_CASE("a dialler leaves a member of another cluster that would have it") {
  World world;
  Listening far(world.network, world.scheduler, "far",
                {.local = hello_of(2, 1, other_cluster), .admit_unknown_cluster = true});
  Dialling joiner(world.near, {.address = "far:1", .local = hello_of(1, 1, {})});
  world.scheduler.run_for(1s);
  REQUIRE(joiner.ups.size() == 1);
  CHECK(joiner.ups[0].cluster_id == other_cluster);
  far.server->set_local(hello_of(2, 1, {}));
  Dialling member(world.near, {.address = "far:1", .local = hello_of(3)});
  world.scheduler.run_for(40ms);
  CHECK(member.ups.empty());
  REQUIRE_FALSE(member.downs.empty());
  CHECK(member.downs[0] == Errc::wrong_cluster);
}

TEST_CASE("who knows no cluster yet is admitted only where that is allowed") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
  Dialling joiner(world.near, {.address = "far:1", .local = hello_of(1, 1, {})});
  world.scheduler.run_for(40ms);
  CHECK(far.ups.empty());
  REQUIRE_FALSE(joiner.downs.empty());
  CHECK(joiner.downs[0] == Errc::wrong_cluster);
}

TEST_CASE("another node than expected is left") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
  Dialling link(world.near, {.address = "far:1", .local = hello_of(1), .expected = NodeId{3}});
  world.scheduler.run_for(40ms);
  CHECK(link.ups.empty());
  REQUIRE(link.downs.size() == 1);
  CHECK(link.downs[0] == Errc::wrong_cluster);
  CHECK(far.server->connections() == 0);
}

TEST_CASE("a member that dials itself is refused") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(1)});
  Dialling link(world.near, {.address = "far:1", .local = hello_of(1)});
  world.scheduler.run_for(40ms);
  CHECK(far.ups.empty());
  REQUIRE(link.downs.size() == 1);
  CHECK(link.downs[0] == Errc::wrong_cluster);
}

TEST_CASE("a refusal by the owner reaches the dialler") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
  far.on_up = [](auto, const Hello&) -> Result<void> { return fail(Errc::overloaded, "full house"); };
  Dialling link(world.near, {.address = "far:1", .local = hello_of(1)});
  world.scheduler.run_for(40ms);
  CHECK(link.ups.empty());
  REQUIRE_FALSE(link.downs.empty());
  CHECK(link.downs[0] == Errc::overloaded);
  CHECK(link.downs[0].message().ends_with("full house"));
  CHECK(far.server->connections() == 0);
  CHECK(far.downs.empty());
}

TEST_CASE("a later incarnation takes the place of an earlier one, and never the other way round") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
  Dialling first(world.near, {.address = "far:1", .local = hello_of(1, 5)});
  world.scheduler.run_for(1s);
  Dialling twin(world.near, {.address = "far:1", .local = hello_of(1, 5)});
  world.scheduler.run_for(1s);
  CHECK(first.link->up());
  CHECK(twin.link->up());
  twin.link.reset();
  world.scheduler.run_for(1s);
  REQUIRE(far.server->connections() == 1);

  Dialling ghost(world.near, {.address = "far:1", .local = hello_of(1, 4)});
  world.scheduler.run_for(40ms);
  CHECK(ghost.ups.empty());
  ghost.link.reset();

  Dialling restarted(world.near, {.address = "far:1", .local = hello_of(1, 6)});
  world.scheduler.run_for(40ms);
  CHECK(restarted.link->up());
  CHECK_FALSE(first.link->up());
  CHECK(far.server->connections() == 1);
  CHECK(far.downs.size() == 2);
}

TEST_CASE("a link dials again with growing back-off until the peer is there") {
  World world;
  Dialling link(world.near, {.address = "far:1", .local = hello_of(1)});
  world.scheduler.run_for(30s);
  REQUIRE(link.downs.size() > 10);
  for (std::size_t at = 1; at < link.down_at.size(); ++at) {
    CAPTURE(at);
    const Duration wait = link.down_at[at] - link.down_at[at - 1];
    const Duration base = std::min<Duration>(2s, 50ms * (1 << std::min<std::size_t>(at - 1, 6)));
    CHECK(wait >= base);
    CHECK(wait <= base * 3 / 2 + 1ms);
  }
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
  world.scheduler.run_for(4s);
  CHECK(link.link->up());
}

TEST_CASE("two links do not dial in step") {
  World world;
  Dialling one(world.near, {.address = "far:1", .local = hello_of(1), .seed = 1});
  Dialling two(world.near, {.address = "far:1", .local = hello_of(1), .seed = 2});
  world.scheduler.run_for(20s);
  CHECK(one.down_at.back() != two.down_at.back());
}

TEST_CASE("a broken connection is reported once and comes back soon") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
  Dialling link(world.near, {.address = "far:1", .local = hello_of(1)});
  world.scheduler.run_for(2s);
  REQUIRE(link.link->up());
  world.network.reset("near", "far");
  world.scheduler.run_for(1ms);
  CHECK_FALSE(link.link->up());
  CHECK(link.downs.size() == 1);
  CHECK(far.downs.size() == 1);
  world.scheduler.run_for(200ms);
  CHECK(link.link->up());
  CHECK(link.ups.size() == 2);
  CHECK(far.ups.size() == 2);
  CHECK(far.ups[0].first != far.ups[1].first);
}

TEST_CASE("a peer that accepts and hangs up is not dialled in a hot loop") {
  World world;
  Host far(world.network, world.scheduler, "far");
  Mux mux(far.loop, far.transport, {});
  REQUIRE(mux.listen("far:1").has_value());
  REQUIRE(mux.add(raft_tag,
                  [](auto connection, auto) {
                    connection->send(bytes_of(encode_hello(hello_of(2))));
                    connection->finish();
                    static std::vector<std::unique_ptr<Connection>> kept;  // until the end of the test run
                    connection.reset();
                  })
              .has_value());
  Dialling link(world.near, {.address = "far:1", .local = hello_of(1)});
  world.scheduler.run_for(20s);
  CHECK(link.downs.size() < 25);
}

TEST_CASE("dialling a host that does not answer times out and goes on") {
  World world;
  world.network.partition("near", "far");
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
  Dialling link(world.near, {.address = "far:1", .local = hello_of(1), .dial_timeout = 500ms});
  world.scheduler.run_for(510ms);
  REQUIRE(link.downs.size() == 1);
  CHECK(link.downs[0] == Errc::timeout);
  world.network.heal_all();
  world.scheduler.run_for(3s);
  CHECK(link.link->up());
}

TEST_CASE("a peer that connects and says nothing is dropped at the handshake's deadline, on both sides") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2), .limits = {.handshake_timeout = 1s}});
  const auto mute = dial(world.scheduler, world.near, "far:1");
  REQUIRE(mute);
  mute->send(std::string(1, '\0'));
  world.scheduler.run_for(900ms);
  CHECK_FALSE(mute->gone());
  world.scheduler.run_for(200ms);
  CHECK(mute->gone());

  Host deaf(world.network, world.scheduler, "deaf");
  std::vector<std::unique_ptr<Peer>> kept;
  Mux mux(deaf.loop, deaf.transport, {});
  REQUIRE(mux.listen("deaf:1").has_value());
  REQUIRE(
      mux.add(raft_tag, [&](auto connection, auto) { kept.push_back(std::make_unique<Peer>(std::move(connection))); })
          .has_value());
  Dialling link(world.near, {.address = "deaf:1", .local = hello_of(1), .limits = {.handshake_timeout = 1s}});
  world.scheduler.run_for(1100ms);
  REQUIRE(link.downs.size() == 1);
  CHECK(link.downs[0] == Errc::timeout);
}

TEST_CASE("connections that send the tag and nothing else do not keep peers out") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
  Dialling early(world.near, {.address = "far:1", .local = hello_of(3)});
  world.scheduler.run_for(100ms);
  std::vector<std::unique_ptr<Peer>> mute;
  for (int count = 0; count < 200; ++count) {
    mute.push_back(dial(world.scheduler, world.near, "far:1"));
    mute.back()->send(std::string(1, '\0'));
  }
  world.scheduler.run_for(100ms);
  CHECK(std::count_if(mute.begin(), mute.end(), [](const auto& peer) { return !peer->gone(); }) == 64);
  Dialling late(world.near, {.address = "far:1", .local = hello_of(1)});
  world.scheduler.run_for(100ms);
  CHECK(late.link->up());
  CHECK(early.link->up());
  CHECK(far.server->connections() == 2);
}

TEST_CASE("nothing but a statement is decoded first: garbage and frames before it close the connection") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
  std::string early;
  for (const SharedBytes& part : to_wire(frame_of(1, "early"))) early += part.view();
  for (const std::string& garbage : {std::string("GET / HTTP/1.1\r\n\r\n"), std::string(64, '\xff'), early}) {
    const auto stranger = dial(world.scheduler, world.near, "far:1");
    REQUIRE(stranger);
    stranger->send(std::string(1, '\0') + garbage);
    world.scheduler.run_for(50ms);
    CHECK(stranger->gone());
    CHECK(stranger->received.empty());
  }
  CHECK(far.ups.empty());
  CHECK(far.frames.empty());
}

TEST_CASE("a later protocol version is refused, a range that holds ours is admitted") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
  const auto speak = [&](std::uint16_t least, std::uint16_t most) {
    std::string block = encode_hello(hello_of(1));
    put_fixed(block.data() + 4, least);
    put_fixed(block.data() + 6, most);
    const std::string_view view = block;
    put_fixed(block.data() + 12, crc32c(view.substr(16), crc32c(view.substr(0, 12))));
    auto peer = dial(world.scheduler, world.near, "far:1");
    REQUIRE(peer);
    peer->send(std::string(1, '\0') + block);
    world.scheduler.run_for(50ms);
    return peer;
  };
  CHECK(speak(2, 9)->gone());
  CHECK(far.ups.empty());
  CHECK_FALSE(speak(1, 9)->gone());
  CHECK(far.ups.size() == 1);
}

TEST_CASE("a frame announced with 4 GiB closes that connection only") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
  Dialling link(world.near, {.address = "far:1", .local = hello_of(1)});
  const auto bomber = dial(world.scheduler, world.near, "far:1");
  REQUIRE(bomber);
  bomber->send(std::string(1, '\0') + encode_hello(hello_of(3)));
  world.scheduler.run_for(100ms);
  REQUIRE(far.server->connections() == 2);
  std::string bomb;
  Encoder(bomb).u32(0xffffffff).u32(0).u8(3);
  bomber->send(bomb);
  world.scheduler.run_for(100ms);
  CHECK(bomber->gone());
  REQUIRE(far.downs.size() == 1);
  CHECK(far.downs[0].second == Errc::entry_too_large);
  CHECK(link.link->up());
  CHECK(far.server->connections() == 1);
}

TEST_CASE("a frame with a wrong checksum closes the connection and is not delivered") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
  const auto peer = dial(world.scheduler, world.near, "far:1");
  REQUIRE(peer);
  std::string frame;
  for (const SharedBytes& part : to_wire(frame_of(1, "hello"))) frame += part.view();
  frame.back() = 'x';
  peer->send(std::string(1, '\0') + encode_hello(hello_of(1)) + frame);
  world.scheduler.run_for(100ms);
  CHECK(peer->gone());
  CHECK(far.frames.empty());
  REQUIRE(far.downs.size() == 1);
  CHECK(far.downs[0].second == Errc::damaged);
}

TEST_CASE("a frame over the limit is not sent, and what a slow reader leaves unsent is bounded") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
  Dialling link(world.near, {.address = "far:1",
                             .local = hello_of(1),
                             .limits = {.frame_bytes_max = 1u << 20, .unsent_bytes_max = 2u << 20}});
  world.scheduler.run_for(1s);
  CHECK_FALSE(link.link->send(frame_of(1, std::string((1u << 20) + 1, 'x'))));
  world.network.stall("far");
  int sent = 0;
  while (link.link->send(frame_of(1, std::string(100'000, 'x')))) ++sent;
  CHECK(sent >= 20);
  CHECK(sent <= 23);
  CHECK(link.link->unsent_bytes() <= 2u << 20);
  world.scheduler.run_for(10ms);
  world.network.heal_all();
  world.scheduler.run_for(5s);
  CHECK(far.frames.size() == static_cast<std::size_t>(sent));
  CHECK(link.link->unsent_bytes() == 0);
}

TEST_CASE("a connection on which nothing arrives for too long is closed, a lively one is not") {
  World world;
  Listening far(world.network, world.scheduler, "far", {.local = hello_of(2), .limits = {.idle_timeout = 1s}});
  Dialling link(world.near, {.address = "far:1", .local = hello_of(1)});
  world.scheduler.run_for(100ms);
  for (int count = 0; count < 5; ++count) {
    CHECK(link.link->send(frame_of(1, "ping")));
    world.scheduler.run_for(600ms);
  }
  CHECK(far.downs.empty());
  world.scheduler.run_for(600ms);
  REQUIRE(far.downs.size() == 1);
  CHECK(far.downs[0].second == Errc::timeout);
}

TEST_CASE("a peer that moved is dialled at its new address") {
  World world;
  Listening old_place(world.network, world.scheduler, "far", {.local = hello_of(2)});
  Listening new_place(world.network, world.scheduler, "elsewhere", {.local = hello_of(2)});
  Dialling link(world.near, {.address = "far:1", .local = hello_of(1)});
  world.scheduler.run_for(1s);
  link.link->set_address("far:1");
  CHECK(link.link->up());
  link.link->set_address("elsewhere:1");
  CHECK_FALSE(link.link->up());
  CHECK(link.downs.empty());  // never from inside a call
  world.scheduler.run_for(100ms);
  CHECK(link.downs.size() == 1);
  CHECK(link.link->up());
  CHECK(old_place.server->connections() == 0);
  CHECK(new_place.server->connections() == 1);
}

TEST_CASE("a link may be destroyed from inside any of its events") {
  for (const int which : {0, 1, 2}) {
    CAPTURE(which);
    World world;
    Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
    far.on_up = [&](LinkServer::ConnectionId id, const Hello&) {
      far.server->send(id, frame_of(1, "x"));
      far.server->send(id, frame_of(1, "y"));
      return Result<void>();
    };
    std::optional<Link> link;
    int events = 0;
    const auto destroy = [&](int now) {
      ++events;
      if (now == which) link.reset();
    };
    link.emplace(world.near.loop, world.near.transport, Link::Options{.address = "far:1", .local = hello_of(1)},
                 Link::Events{.up = [&](const Hello&) { destroy(0); },
                              .frame = [&](ReceivedFrame) { destroy(1); },
                              .down = [&](const Error&) { destroy(2); }});
    world.scheduler.run_for(100ms);
    world.network.reset("near", "far");
    world.scheduler.run_for(5s);
    CHECK_FALSE(link.has_value());
    CHECK(events == which + 1 + (which == 2 ? 1 : 0));
    CHECK(far.server->connections() == 0);
  }
}

TEST_CASE("a server may drop a connection, or be destroyed, from inside any of its events") {
  for (const bool whole : {false, true}) {
    for (const int which : {0, 1, 2}) {
      CAPTURE(whole);
      CAPTURE(which);
      World world;
      Listening far(world.network, world.scheduler, "far", {.local = hello_of(2)});
      const auto destroy = [&](LinkServer::ConnectionId id) {
        if (whole) {
          far.server.reset();
        } else {
          far.server->drop(id);
        }
      };
      if (which == 0) {
        far.on_up = [&](LinkServer::ConnectionId id, const Hello&) {
          destroy(id);
          return Result<void>();
        };
      }
      if (which == 1) far.on_frame = [&](LinkServer::ConnectionId id, const ReceivedFrame&) { destroy(id); };
      const auto peer = dial(world.scheduler, world.near, "far:1");
      REQUIRE(peer);
      std::string stream = std::string(1, '\0') + encode_hello(hello_of(1));
      for (int count = 0; count < 2; ++count) {
        for (const SharedBytes& part : to_wire(frame_of(1, "hello"))) stream += part.view();
      }
      peer->send(stream);
      world.scheduler.run_for(100ms);
      if (which == 2) far.server.reset();
      world.scheduler.run_for(100ms);
      CHECK(peer->gone());
      CHECK(far.frames.size() == static_cast<std::size_t>(which == 0 ? 0 : which));
    }
  }
}

TEST_CASE("the same seed gives the same run") {
  const auto run = [](std::uint64_t seed) {
    SimScheduler scheduler(seed);
    SimNetwork network(scheduler);
    network.weather.reset_chance = 0.02;
    network.weather.chunk_max = 40;
    Host near(network, scheduler, "near");
    Listening far(network, scheduler, "far", {.local = hello_of(2)});
    far.on_frame = [&](LinkServer::ConnectionId id, ReceivedFrame frame) {
      far.server->send(id, Frame{.type = 1, .parts = {frame.body}});
    };
    Dialling link(near, {.address = "far:1", .local = hello_of(1)});
    for (int count = 0; count < 300; ++count) {
      link.link->send(frame_of(1, std::string(100, 'x')));
      scheduler.run_for(10ms);
    }
    CHECK(link.ups.size() > 1);
    return std::pair(scheduler.steps(), link.frames.size());
  };
  CHECK(run(1) == run(1));
  CHECK(run(1) != run(2));
}

TEST_SUITE_END();
