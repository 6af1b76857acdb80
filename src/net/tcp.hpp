// Transport over TCP sockets on an AsioLoop.
#pragma once

#include <memory>

#include "net/asio_loop.hpp"
#include "net/transport.hpp"

namespace flotilla::net {

/// Thread: loop. Sockets are close-on-exec and never raise SIGPIPE; small writes are not delayed (TCP_NODELAY); a peer
/// that vanished is noticed by keep-alive or, with data under way, after a minute (TCP_USER_TIMEOUT).
class TcpTransport final : public Transport {
 public:
  explicit TcpTransport(std::shared_ptr<AsioLoop> loop) : loop_(std::move(loop)) {}

  /// A name is looked up in the calling thread (give an address where that matters). address_in_use, invalid_argument,
  /// io_error.
  [[nodiscard]] Result<std::unique_ptr<Listener>> listen(const Address& address, AcceptEvents events) override;
  /// Names are looked up on a thread of their own; all addresses of a name are tried in turn.
  [[nodiscard]] std::shared_ptr<void> dial(const Address& address, Duration timeout, DialDone done) override;

 private:
  std::shared_ptr<AsioLoop> loop_;
};

}  // namespace flotilla::net
