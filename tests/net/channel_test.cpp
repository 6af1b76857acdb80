#include "net/channel.hpp"

#include <doctest/doctest.h>

#include "net/support.hpp"

using namespace flotilla;
using namespace flotilla::net;
using namespace flotilla::test;

TEST_SUITE_BEGIN("net.channel");

TEST_CASE("what is sent before the caller's greeting is answered is held, and bounded like what is unsent") {
  SimScheduler scheduler{7};
  SimNetwork network{scheduler};
  Host near{network, scheduler, "near"};
  Host far{network, scheduler, "far"};
  Mux mux(far.loop, far.transport, {});
  REQUIRE(mux.listen("far:1").has_value());
  const ClusterId cluster{1, 2};
  int taken = 0;
  std::optional<LinkServer> server;
  LinkServer::Options serving{.local = {cluster, NodeId{2}, 1, "far:1"}};
  serving.limits.unsent_bytes_max = 4096;
  server.emplace(far.loop, mux, serving,
                 LinkServer::Events{.up = [&](LinkServer::ConnectionId id, const Hello&) -> Result<void> {
                                      while (taken < 100 && server->send(id, frame_of(1, std::string(1000, 'x'))))
                                        ++taken;
                                      return {};
                                    },
                                    .frame = [](LinkServer::ConnectionId, ReceivedFrame) {},
                                    .down = [](LinkServer::ConnectionId, const Error&) {}});
  int received = 0;
  const Link link(
      near.loop, near.transport, Link::Options{.address = "far:1", .local = {cluster, NodeId{1}, 1, "near:1"}},
      Link::Events{
          .up = [](const Hello&) {}, .frame = [&](ReceivedFrame) { ++received; }, .down = [](const Error&) {}});
  scheduler.run_for(std::chrono::seconds(1));
  CHECK(taken == 4);
  CHECK(received == 4);
}

TEST_SUITE_END();
