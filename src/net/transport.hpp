// The socket seam: byte streams as the loop thread sees them. The Asio shell implements it; so does the simulator,
// whose streams deliver arbitrary chunks, stall, reset and refuse. Everything above (mux, handshake, frames) runs
// unchanged on both.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/executor.hpp"
#include "flotilla/error.hpp"
#include "flotilla/types.hpp"

namespace flotilla::net {

/// Receives a connection's events, on the loop thread, never from inside one of the connection's own functions. It may
/// destroy the connection from inside any of them.
class ConnectionHandler {
 public:
  virtual void on_data(std::string_view bytes) = 0;  ///< valid during the call; at least 1 byte
  virtual void on_end() = 0;                         ///< the peer finished writing; sending goes on
  virtual void on_closed(const Error& error) = 0;    ///< broken; nothing follows
  virtual void on_drained() {}                       ///< unsent_bytes() fell to 0

 protected:
  ~ConnectionHandler() = default;
};

/// One byte stream. Thread: loop. Destroying it drops the connection; no event follows. What was queued in the same
/// turn still leaves as far as the system takes it at once, the rest is dropped. Sends are queued without bound: the
/// owner looks at unsent_bytes() and enforces its own.
class Connection {
 public:
  virtual ~Connection() = default;
  /// Begins (or, with another handler, continues) delivery of events.
  virtual void start(ConnectionHandler& handler) = 0;
  /// Flow control: while paused no on_data is delivered and at most one socket buffer is read ahead.
  virtual void pause() = 0;
  virtual void resume() = 0;
  /// Queues the parts in order. What one loop turn queues leaves in one scatter write where possible.
  virtual void send(std::vector<SharedBytes> parts) = 0;
  void send(SharedBytes part) {
    std::vector<SharedBytes> parts;
    parts.push_back(std::move(part));
    send(std::move(parts));
  }
  virtual std::size_t unsent_bytes() const = 0;
  /// End of stream after all that was queued.
  virtual void finish() = 0;
  virtual Address remote() const = 0;
};

/// A bound, listening port; destroying it stops listening.
class Listener {
 public:
  virtual ~Listener() = default;
  virtual Address address() const = 0;
};

struct AcceptEvents {
  std::function<void(std::unique_ptr<Connection>)> accepted;
  std::function<void(const Error&)> failed;  ///< one accept failed; the listener backs off and goes on
};

class Transport {
 public:
  virtual ~Transport() = default;
  [[nodiscard]] virtual Result<std::unique_ptr<Listener>> listen(const Address& address, AcceptEvents events) = 0;
  /// Calls `done` once, later, on the loop thread, unless the returned handle is destroyed before.
  using DialDone = std::function<void(Result<std::unique_ptr<Connection>>)>;
  [[nodiscard]] virtual std::shared_ptr<void> dial(const Address& address, Duration timeout, DialDone done) = 0;
};

}  // namespace flotilla::net
