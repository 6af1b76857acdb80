// One TCP port for many services, told apart by the first byte. Works with a database (DB::streams()) and without one.
//
//   auto mux = flotilla::StreamMux::open({.listen = "127.0.0.1:7000"}).value();
//   mux.service(0x80, [](flotilla::Stream stream) { ... });                  // tagged: the dialer sends 0x80 first
//   auto stream = mux.dial("127.0.0.1:7000", 0x80).value();
//
// First bytes. A *tagged* service owns one byte, sent by the dialer and consumed before the service sees the stream. A
// *peeked* service claims first bytes of a protocol that has no tag (RESP '*', HTTP method letters) and sees them
// unconsumed. Tags: 0x00-0x08, 0x0e-0x15, 0x80-0xff; a database uses 0x00-0x08 itself. Peeked: 0x20-0x7f. 0x16 is kept
// for TLS. A connection that does not send its first byte in time, or sends one that nobody claims, is closed and
// counted.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "flotilla/error.hpp"
#include "flotilla/options.hpp"
#include "flotilla/types.hpp"

namespace flotilla {

namespace detail {
class StreamImpl;
class StreamListenerImpl;
class StreamMuxImpl;
}  // namespace detail

using Tag = std::uint8_t;

/// One connected byte stream. Move-only; destroying it closes it. Thread: any; one reader and one writer at a time.
/// The blocking forms return would_deadlock on the mux's own threads (handlers and completions): use the completion
/// forms there.
class Stream {
 public:
  using ReadDone = std::function<void(Result<Bytes>)>;
  using WriteDone = std::function<void(Result<void>)>;

  Stream() = default;
  Stream(Stream&&) noexcept;
  Stream& operator=(Stream&&) noexcept;
  ~Stream();

  /// At least 1 and at most `max` bytes; an empty value at the peer's end of stream. timeout after `deadline`, with
  /// nothing lost.
  [[nodiscard]] Result<Bytes> read(std::size_t max = 65536,
                                   std::chrono::milliseconds deadline = std::chrono::hours(24));
  /// Exactly `count` bytes, or an error.
  [[nodiscard]] Result<Bytes> read_exactly(std::size_t count,
                                           std::chrono::milliseconds deadline = std::chrono::hours(24));
  /// Returns when all of it was handed to the operating system.
  [[nodiscard]] Result<void> write(std::string_view bytes, std::chrono::milliseconds deadline = std::chrono::hours(24));

  /// Completion forms; `done` runs on a thread of the mux and must not block. One read and one write may be
  /// outstanding.
  void async_read(std::size_t max, ReadDone done);
  void async_write(Bytes bytes, WriteDone done);

  /// Sends end-of-stream after all that was written; reading goes on.
  void finish_writing();
  /// Drops the connection; outstanding operations end with `closed`. Idempotent.
  void close();
  Address remote() const;
  bool connected() const noexcept { return impl_ != nullptr; }

  explicit Stream(std::shared_ptr<detail::StreamImpl> impl);  // made by the mux

 private:
  std::shared_ptr<detail::StreamImpl> impl_;
};

/// Runs on a thread of the mux with a new stream; must not block (hand the stream to a thread, or use its completion
/// forms).
using StreamHandler = std::function<void(Stream)>;

/// Accepts the streams of one tag in a blocking way. Move-only; destroying it ends the service.
class StreamListener {
 public:
  StreamListener(StreamListener&&) noexcept;
  StreamListener& operator=(StreamListener&&) noexcept;
  ~StreamListener();
  /// The next stream; timeout after `deadline`; closed once this listener or the mux is closed.
  [[nodiscard]] Result<Stream> accept(std::chrono::milliseconds deadline = std::chrono::hours(24));
  void close();

  explicit StreamListener(std::shared_ptr<detail::StreamListenerImpl> impl);

 private:
  std::shared_ptr<detail::StreamListenerImpl> impl_;
};

struct StreamMuxOptions {
  Address listen;  ///< "host:port", port 0 takes a free one; empty: dial only
  unsigned unclassified_max = 256;
  std::chrono::milliseconds classify_timeout{2000};
  unsigned connections_max = 4096;
  unsigned connections_per_address_max = 1024;
  LogSink log_sink;
};

/// What happened on the port so far.
struct StreamMuxStats {
  std::uint64_t accepted = 0;
  std::uint64_t classified = 0;
  std::uint64_t unknown_tag = 0;       ///< closed: nobody claims the byte
  std::uint64_t classify_timeout = 0;  ///< closed: sent nothing in time
  std::uint64_t refused = 0;           ///< closed: over a cap
  std::uint64_t backlog_full = 0;      ///< closed: the service's backlog was full
  std::uint64_t accept_errors = 0;
  unsigned open = 0;  ///< connections open now
};

class StreamMux {
 public:
  static constexpr std::size_t backlog_default = 64;

  /// Binds, listens and starts its thread. address_in_use, invalid_argument (malformed address).
  static Result<StreamMux> open(StreamMuxOptions options);
  StreamMux(StreamMux&&) noexcept;
  StreamMux& operator=(StreamMux&&) noexcept;
  ~StreamMux();

  /// Registers a handler for a tag. invalid_argument if the byte is no free tag.
  Result<void> service(Tag tag, StreamHandler handler);
  /// Registers a handler for protocols that begin with any byte of `first_bytes`; they are left in the stream.
  Result<void> peeked_service(std::string_view first_bytes, StreamHandler handler);
  /// Ends a service; its later connections count as unknown. Streams already handed out live on.
  void remove_service(Tag tag);
  /// A blocking listener for a tag. At most `backlog` streams wait; more are closed and counted.
  Result<StreamListener> listen(Tag tag, std::size_t backlog = backlog_default);
  /// Connects and sends the tag. timeout, io_error (with the operating system's reason), closed.
  [[nodiscard]] Result<Stream> dial(const Address& address, Tag tag,
                                    std::chrono::milliseconds deadline = std::chrono::seconds(5));
  void async_dial(const Address& address, Tag tag, std::chrono::milliseconds deadline,
                  std::function<void(Result<Stream>)> done);

  /// Where it really listens; empty for dial-only.
  Address address() const;
  StreamMuxStats stats() const;
  /// Stops listening, closes all streams, ends blocked accepts and operations with `closed`. Idempotent.
  void close();

  explicit StreamMux(std::shared_ptr<detail::StreamMuxImpl> impl);

 private:
  std::shared_ptr<detail::StreamMuxImpl> impl_;
};

}  // namespace flotilla
