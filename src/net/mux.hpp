// The port: accepts, classifies each connection by its first byte, hands it to the service that claims the byte.
// The accept path never waits for a byte: classification belongs to the connection, with a deadline and caps.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/executor.hpp"
#include "flotilla/stream.hpp"
#include "net/transport.hpp"

namespace flotilla::net {

/// Tags of the database itself; applications use the others (flotilla/stream.hpp).
inline constexpr Tag raft_tag = 0x00;
inline constexpr Tag forward_tag = 0x01;
inline constexpr Tag snapshot_tag = 0x02;
inline constexpr Tag admin_tag = 0x03;

/// A service gets the connection (paused) and the bytes that arrived after the tag (or, peeked, with it). Before it
/// returns it calls start(), or destroys the connection; resume() may come later.
using ServiceHandler = std::function<void(std::unique_ptr<Connection> connection, std::string initial)>;

struct MuxOptions {
  unsigned unclassified_max = 256;
  Duration classify_timeout = std::chrono::seconds(2);
  unsigned connections_max = 4096;
  unsigned connections_per_address_max = 1024;
  unsigned reserved_for_peers = 64;  ///< of connections_max, only for tags below 0x09
  LogSink log_sink;
};

/// Thread: loop.
class Mux {
 public:
  Mux(Loop& loop, Transport& transport, MuxOptions options);
  ~Mux();
  Mux(const Mux&) = delete;
  Mux& operator=(const Mux&) = delete;

  [[nodiscard]] Result<void> listen(const Address& address);
  Address address() const;  ///< empty before listen()
  Result<void> add(Tag tag, ServiceHandler handler);
  Result<void> add_peeked(std::string_view first_bytes, ServiceHandler handler);
  void remove(Tag tag);
  StreamMuxStats stats() const;
  /// Stops listening and drops every unclassified connection.
  void close();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flotilla::net
