// A port under strangers, in virtual time: the input is a script of clients that connect, send anything in any pieces,
// end, vanish and wait, against a mux with a link server, a tagged and a peeked service. Whatever they do, the caps
// hold, an honest client is served at the end, and once everybody left nothing is held.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/codec.hpp"
#include "net/frame.hpp"
#include "net/hello.hpp"
#include "net/support.hpp"

using namespace flotilla;
using namespace flotilla::test;
using namespace std::chrono_literals;

namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

constexpr unsigned connections_max = 12;
const ClusterId cluster{1, 2};

struct World {
  explicit World(std::uint64_t seed) : scheduler(seed) {
    check(mux.listen("server:1").has_value());
    check(mux.add(0x80,
                  [this](auto connection, std::string initial) {
                    echoes.push_back(std::make_unique<Echo>(std::move(connection), initial));
                  })
              .has_value());
    check(mux.add_peeked("GP*",
                         [](auto connection, std::string initial) {
                           check(!initial.empty());
                           connection->send(SharedBytes(std::move(initial)));  // and hangs up
                         })
              .has_value());
  }

  struct Echo final : net::ConnectionHandler {
    Echo(std::unique_ptr<net::Connection> the_connection, const std::string& initial)
        : connection(std::move(the_connection)) {
      connection->start(*this);
      connection->resume();
      if (!initial.empty()) on_data(initial);
    }
    void on_data(std::string_view bytes) override { connection->send(SharedBytes(std::string(bytes))); }
    void on_end() override { connection.reset(); }
    void on_closed(const Error&) override { connection.reset(); }
    std::unique_ptr<net::Connection> connection;
  };

  SimScheduler scheduler;
  SimNetwork network{scheduler};
  Host server_host{network, scheduler, "server"};
  Host client{network, scheduler, "client"};
  std::vector<std::unique_ptr<Echo>> echoes;
  net::Mux mux{server_host.loop,
               server_host.transport,
               {.unclassified_max = 4,
                .connections_max = connections_max,
                .connections_per_address_max = connections_max - 2,
                .reserved_for_peers = 2}};
  net::LinkServer server{server_host.loop,
                         mux,
                         {.local = {.cluster_id = cluster, .node_id = NodeId{1}},
                          .limits = {.frame_bytes_max = 4096, .handshake_timeout = 1s, .idle_timeout = 3s}},
                         {.up = [](auto, const net::Hello& peer) -> Result<void> {
                            if (peer.node_id.value % 7 == 6) return fail(Errc::overloaded, "no");
                            return {};
                          },
                          .frame =
                              [this](net::LinkServer::ConnectionId id, net::ReceivedFrame frame) {
                                if (frame.type == 0xff) return server.drop(id);
                                server.send(id, net::Frame{.type = frame.type, .parts = {frame.body}});
                              },
                          .down = [](auto, const Error&) {}}};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Decoder in(std::string_view(reinterpret_cast<const char*>(data), size));
  World world(in.u8());
  world.network.weather.chunk_max = 1 + in.u8();
  std::vector<std::unique_ptr<Peer>> clients;
  while (in.ok() && in.remaining() > 0) {
    const std::uint8_t what = in.u8();
    const std::size_t which = clients.empty() ? 0 : what / 8 % clients.size();
    Peer* const peer = clients.empty() ? nullptr : clients[which].get();
    switch (what % 8) {
      case 0: {
        auto connected = dial(world.scheduler, world.client, "server:1");
        if (connected && clients.size() < 32) clients.push_back(std::move(connected));
        break;
      }
      case 1:
      case 2:
        if (peer != nullptr) peer->send(std::string(in.raw(std::min<std::size_t>(in.u8(), in.remaining()))));
        break;
      case 3:
        if (peer != nullptr) {
          peer->send(std::string(1, '\0') +
                     net::encode_hello({.cluster_id = cluster, .node_id = NodeId{in.u8()}, .incarnation = in.u8()}));
        }
        break;
      case 4:
        if (peer != nullptr) {
          std::string frame;
          for (const SharedBytes& part : net::to_wire(frame_of(in.u8(), std::string(in.u8(), 'x'))))
            frame += part.view();
          peer->send(frame);
        }
        break;
      case 5:
        if (peer != nullptr) peer->connection->finish();
        break;
      case 6:
        if (peer != nullptr) clients.erase(clients.begin() + static_cast<std::ptrdiff_t>(which));
        break;
      default: world.scheduler.run_for(std::chrono::milliseconds(in.u8() * 10));
    }
    check(world.mux.stats().open <= connections_max);
  }
  clients.clear();
  world.scheduler.run_for(10s);
  check(world.mux.stats().open == 0);
  check(world.server.connections() == 0);
  auto honest = dial(world.scheduler, world.client, "server:1");
  check(honest != nullptr);
  honest->send("\x80hello");
  world.scheduler.run_for(1s);
  check(honest->received == "hello");
  return 0;
}
