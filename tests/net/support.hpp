// What the tests of this folder share.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "net/link.hpp"
#include "net/mux.hpp"
#include "support/sim_loop.hpp"
#include "support/sim_transport.hpp"

namespace flotilla::test {

/// Records what a connection says.
struct Peer final : net::ConnectionHandler {
  explicit Peer(std::unique_ptr<net::Connection> the_connection) : connection(std::move(the_connection)) {
    connection->start(*this);
    connection->resume();
  }
  void on_data(std::string_view bytes) override { received += bytes; }
  void on_end() override { ended = true; }
  void on_closed(const Error& error) override { closed = error; }
  void on_drained() override { ++drained; }
  void send(std::string bytes) { connection->send(SharedBytes(std::move(bytes))); }
  bool gone() const { return ended || closed.has_value(); }

  std::unique_ptr<net::Connection> connection;
  std::string received;
  bool ended = false;
  int drained = 0;
  std::optional<Error> closed;
};

/// One simulated host with a loop and a way to the network.
struct Host {
  Host(SimNetwork& network, SimScheduler& scheduler, std::string name)
      : loop(scheduler), transport(network, loop, std::move(name)) {}
  SimLoop loop;
  SimTransport transport;
};

/// Dials from `host` and waits; nullptr if it failed.
inline std::unique_ptr<Peer> dial(SimScheduler& scheduler, Host& host, const Address& address, Error* why = nullptr) {
  std::unique_ptr<Peer> peer;
  bool ended = false;
  const auto handle = host.transport.dial(address, std::chrono::seconds(5), [&](auto result) {
    ended = true;
    if (result) {
      peer = std::make_unique<Peer>(std::move(*result));
    } else if (why != nullptr) {
      *why = result.error();
    }
  });
  scheduler.run_until([&] { return ended; });
  return peer;
}

inline SharedBytes bytes_of(std::string text) {
  return SharedBytes(std::move(text));
}

inline net::Frame frame_of(std::uint8_t type, std::string body) {
  net::Frame frame{.type = type};
  if (!body.empty()) frame.parts.push_back(bytes_of(std::move(body)));
  return frame;
}

}  // namespace flotilla::test
