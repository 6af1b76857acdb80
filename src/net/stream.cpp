// The public streams. What a caller's thread and the loop share of a stream is its read-ahead, its two outstanding
// operations and how it ended, under one mutex; the connection itself is touched by the loop alone.
#include "flotilla/stream.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "base/log_sink.hpp"
#include "net/port.hpp"

namespace flotilla {
namespace {

using Lock = std::unique_lock<std::mutex>;

// Received and not yet read: above it the connection is paused, and TCP makes the sender wait.
constexpr std::size_t read_ahead_bytes = 256u << 10;
// A deadline further away is no deadline, and would overflow the clock.
constexpr std::chrono::milliseconds deadline_max = std::chrono::hours(24 * 365);

std::chrono::steady_clock::time_point until(std::chrono::milliseconds deadline) {
  return std::chrono::steady_clock::now() + std::clamp(deadline, std::chrono::milliseconds(0), deadline_max);
}

auto would_deadlock() {
  return fail(Errc::would_deadlock, "a blocking call on the mux's own thread; use the completion form");
}

/// The way to the loop for streams, which may outlive it.
class Gate {
 public:
  explicit Gate(Loop& loop) : loop_(&loop) {}

  bool is_current() {
    const std::lock_guard lock(mutex_);
    return loop_ != nullptr && loop_->is_current();
  }
  /// False: closed, and `task` is still the caller's.
  bool post(Task& task) {
    const std::lock_guard lock(mutex_);
    if (loop_ == nullptr) return false;
    loop_->post(std::move(task));
    return true;
  }
  void post_or_drop(Task task) { post(task); }
  /// For completions: each runs, on the loop while there is one.
  void post_or_run(Task task) {
    if (!post(task)) task();
  }
  void close() {
    const std::lock_guard lock(mutex_);
    loop_ = nullptr;
  }

 private:
  std::recursive_mutex mutex_;  // a stopped loop destroys a task inside post(), and that may come here again
  Loop* loop_;
};

}  // namespace

namespace detail {

class StreamImpl final : public net::ConnectionHandler, public std::enable_shared_from_this<StreamImpl> {
 public:
  StreamImpl(std::shared_ptr<Gate> gate, std::unique_ptr<net::Connection> connection, std::string initial)
      : gate_(std::move(gate)),
        remote_(connection->remote()),
        connection_(std::move(connection)),
        buffer_(std::move(initial)) {}

  /// Thread: loop.
  void begin() {
    connection_->start(*this);
    connection_->resume();
  }

  Result<Bytes> read(std::size_t max, std::chrono::milliseconds deadline) {
    if (gate_->is_current()) return would_deadlock();
    Lock lock(mutex_);
    if (auto wrong = begin_read(max)) return fail(*wrong);
    const bool ready = changed_.wait_until(lock, until(deadline), [this] { return can_read(); });
    reading_ = false;
    if (!ready) return fail(Errc::timeout, "nothing arrived in time");
    return take(max);
  }

  Result<Bytes> read_exactly(std::size_t count, std::chrono::milliseconds deadline) {
    if (gate_->is_current()) return would_deadlock();
    const auto end = until(deadline);
    Lock lock(mutex_);
    if (count == 0) return Bytes();
    if (auto wrong = begin_read(count)) return fail(*wrong);
    Bytes bytes;
    std::optional<Error> short_of;
    while (bytes.size() < count && !short_of) {
      if (!changed_.wait_until(lock, end, [this] { return can_read(); })) {
        short_of.emplace(Errc::timeout, fmt::format("{} of {} bytes arrived in time", bytes.size(), count));
        break;
      }
      Result<Bytes> more = take(count - bytes.size());
      if (!more) {
        short_of = more.error();
      } else if (more->empty()) {
        short_of.emplace(Errc::closed, fmt::format("the stream ended after {} of {} bytes", bytes.size(), count));
      } else {
        bytes += *more;
      }
    }
    reading_ = false;
    if (!short_of) return bytes;
    buffer_.replace(0, offset_, bytes);  // nothing is lost: a later read begins with it
    offset_ = 0;
    return fail(*short_of);
  }

  void async_read(std::size_t max, Stream::ReadDone done) {
    Lock lock(mutex_);
    std::optional<Result<Bytes>> result;
    if (auto wrong = begin_read(max)) {
      result = tl::unexpected(*wrong);
    } else if (can_read()) {
      reading_ = false;
      result = take(max);
    } else {
      read_done_ = std::move(done);
      read_max_ = max;
      return;
    }
    lock.unlock();
    gate_->post_or_run([done = std::move(done), result = std::move(*result)]() mutable { done(std::move(result)); });
  }

  Result<void> write(std::string_view bytes, std::chrono::milliseconds deadline) {
    if (gate_->is_current()) return would_deadlock();
    const auto end = until(deadline);
    Lock lock(mutex_);
    if (!changed_.wait_until(lock, end, [this] { return !writing_ || ended_badly(); })) {
      return fail(Errc::timeout, "an earlier write is still under way; nothing of this one was sent");
    }
    if (ended_badly()) return fail(how_it_ended());
    if (bytes.empty()) return {};
    const std::uint64_t ticket = begin_write(Bytes(bytes));
    if (!changed_.wait_until(lock, end, [&] { return written_ >= ticket || ended_badly(); })) {
      return fail(Errc::timeout, "the peer does not read; what is left is sent when it does");
    }
    if (written_ >= ticket) return {};
    return fail(how_it_ended());
  }

  void async_write(Bytes bytes, Stream::WriteDone done) {
    Lock lock(mutex_);
    Result<void> result;
    if (ended_badly()) {
      result = fail(how_it_ended());
    } else if (writing_) {
      result = fail(Errc::overloaded, "an earlier write is still under way; nothing of this one was sent");
    } else if (!bytes.empty()) {
      write_done_ = std::move(done);
      begin_write(std::move(bytes));
      return;
    }
    lock.unlock();
    gate_->post_or_run([done = std::move(done), result = std::move(result)]() mutable { done(std::move(result)); });
  }

  void finish_writing() {
    gate_->post_or_drop([self = shared_from_this()] {
      if (self->connection_) self->connection_->finish();
    });
  }

  void close() {
    end();
    drop();
  }
  /// Nothing is sent or received any more.
  void end() {
    Lock lock(mutex_);
    if (!std::exchange(closed_, true)) end_operations(lock);
  }
  /// The peer learns of it.
  void drop() {
    gate_->post_or_drop([self = shared_from_this()] { self->connection_.reset(); });
  }

  const Address& remote() const { return remote_; }

  // Thread: loop.
  void on_data(std::string_view bytes) override {
    Lock lock(mutex_);
    if (closed_) return;
    buffer_.append(bytes);
    if (read_done_) return complete_read(lock);
    if (buffered() >= read_ahead_bytes) {
      paused_ = true;
      connection_->pause();
    }
    changed_.notify_all();
  }
  void on_end() override {
    Lock lock(mutex_);
    end_of_stream_ = true;
    if (read_done_) return complete_read(lock);
    changed_.notify_all();
  }
  void on_closed(const Error& error) override {
    Lock lock(mutex_);
    if (closed_) return;
    error_ = error;
    end_operations(lock);
  }
  void on_drained() override {
    Lock lock(mutex_);
    if (!submitted_) return;  // what drained is the tag; the write's own bytes are still on their way to the loop
    submitted_ = false;
    writing_ = false;
    ++written_;
    const Stream::WriteDone done = std::exchange(write_done_, nullptr);
    changed_.notify_all();
    lock.unlock();
    if (done) done({});
  }

 private:
  // All of them: mutex_ is held.
  std::size_t buffered() const { return buffer_.size() - offset_; }
  bool ended_badly() const { return closed_ || error_.has_value(); }
  bool can_read() const { return buffered() > 0 || end_of_stream_ || ended_badly(); }
  Error how_it_ended() const { return closed_ ? Error(Errc::closed, "the stream is closed") : *error_; }

  std::optional<Error> begin_read(std::size_t max) {
    if (closed_) return how_it_ended();
    if (max == 0) return Error(Errc::invalid_argument, "a read of no bytes");
    if (std::exchange(reading_, true)) return Error(Errc::invalid_argument, "another read is outstanding");
    return std::nullopt;
  }

  /// Requires: can_read(). What arrived before a failure is delivered before it.
  Result<Bytes> take(std::size_t max) {
    if (closed_) return fail(how_it_ended());
    if (buffered() == 0) {
      if (!end_of_stream_ && error_) return fail(*error_);
      return Bytes();
    }
    Bytes bytes;
    if (offset_ == 0 && buffer_.size() <= max) {
      bytes.swap(buffer_);
    } else {
      bytes = buffer_.substr(offset_, max);
      offset_ += bytes.size();
      if (offset_ == buffer_.size() || offset_ >= read_ahead_bytes / 2) {
        buffer_.erase(0, offset_);
        offset_ = 0;
      }
    }
    if (paused_ && buffered() < read_ahead_bytes / 2) resume();
    return bytes;
  }

  void resume() {
    paused_ = false;
    gate_->post_or_drop([self = shared_from_this()] {
      if (self->connection_) self->connection_->resume();
    });
  }

  std::uint64_t begin_write(Bytes bytes) {
    writing_ = true;
    gate_->post_or_drop([self = shared_from_this(), part = SharedBytes(std::move(bytes))] {
      if (!self->connection_) return;
      {
        const Lock lock(self->mutex_);
        self->submitted_ = true;
      }
      self->connection_->send(part);
    });
    return written_ + 1;
  }

  void complete_read(Lock& lock) {
    const Stream::ReadDone done = std::exchange(read_done_, nullptr);
    reading_ = false;
    Result<Bytes> result = take(read_max_);
    lock.unlock();
    done(std::move(result));
  }

  /// Closed or broken: every outstanding operation ends.
  void end_operations(Lock& lock) {
    Stream::ReadDone read_done = std::exchange(read_done_, nullptr);
    Stream::WriteDone write_done = std::exchange(write_done_, nullptr);
    if (read_done) reading_ = false;
    const Error error = how_it_ended();
    changed_.notify_all();
    lock.unlock();
    if (read_done) {
      gate_->post_or_run([read_done = std::move(read_done), error] { read_done(tl::unexpected(error)); });
    }
    if (write_done) {
      gate_->post_or_run([write_done = std::move(write_done), error] { write_done(tl::unexpected(error)); });
    }
  }

  const std::shared_ptr<Gate> gate_;
  const Address remote_;
  std::unique_ptr<net::Connection> connection_;  // thread: loop

  std::mutex mutex_;
  std::condition_variable changed_;
  std::string buffer_;
  std::size_t offset_ = 0;  // of buffer_, read already
  bool end_of_stream_ = false;
  bool closed_ = false;
  std::optional<Error> error_;
  bool paused_ = false;
  bool reading_ = false;
  Stream::ReadDone read_done_;
  std::size_t read_max_ = 0;
  bool writing_ = false;
  bool submitted_ = false;  // the outstanding write reached the connection
  std::uint64_t written_ = 0;
  Stream::WriteDone write_done_;
};

class StreamListenerImpl {
 public:
  StreamListenerImpl(std::weak_ptr<StreamMuxImpl> mux, std::shared_ptr<Gate> gate, Tag tag, std::size_t backlog)
      : mux_(std::move(mux)), gate_(std::move(gate)), tag_(tag), backlog_(backlog) {}

  Result<Stream> accept(std::chrono::milliseconds deadline) {
    if (gate_->is_current()) return would_deadlock();
    Lock lock(mutex_);
    const bool ready = changed_.wait_until(lock, until(deadline), [this] { return closed_ || !waiting_.empty(); });
    if (closed_) return fail(Errc::closed, "the listener is closed");
    if (!ready) return fail(Errc::timeout, "no stream came in time");
    Stream stream = std::move(waiting_.front());
    waiting_.pop_front();
    return stream;
  }

  /// Thread: loop. False: the backlog is full.
  bool has_room() {
    const Lock lock(mutex_);
    return !closed_ && waiting_.size() < backlog_;
  }
  void add(Stream stream) {
    const Lock lock(mutex_);
    if (closed_) return;
    waiting_.push_back(std::move(stream));
    changed_.notify_one();
  }

  void close();
  /// Ends it without asking the mux, which does so itself.
  bool end() {
    std::deque<Stream> dropped;
    const Lock lock(mutex_);
    dropped.swap(waiting_);
    changed_.notify_all();
    return !std::exchange(closed_, true);
  }

 private:
  const std::weak_ptr<StreamMuxImpl> mux_;
  const std::shared_ptr<Gate> gate_;
  const Tag tag_;
  const std::size_t backlog_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Stream> waiting_;
  bool closed_ = false;
};

/// The one call of a dial's completion: `closed` if it goes without one.
class DialDone {
 public:
  explicit DialDone(std::function<void(Result<Stream>)> done) : done_(std::move(done)) {}
  DialDone(const DialDone&) = delete;
  DialDone& operator=(const DialDone&) = delete;
  ~DialDone() { operator()(fail(Errc::closed, "the mux is closed")); }
  void operator()(Result<Stream> result) {
    if (const auto done = std::exchange(done_, nullptr)) done(std::move(result));
  }

 private:
  std::function<void(Result<Stream>)> done_;
};

class StreamMuxImpl : public std::enable_shared_from_this<StreamMuxImpl> {
 public:
  StreamMuxImpl(std::shared_ptr<net::Port> port, bool owns_port, bool database_tags_reserved)
      : port_(std::move(port)),
        owns_port_(owns_port),
        database_tags_reserved_(database_tags_reserved),
        gate_(std::make_shared<Gate>(port_->loop())) {}

  Result<void> open(const Address& address) {
    Result<void> result = fail(Errc::closed, "the mux is closed");
    on_loop([&] { result = port_->mux().listen(address); });
    return result;
  }

  Result<void> add(Tag tag, StreamHandler handler) {
    if (!handler) return fail(Errc::invalid_argument, "a service needs a handler");
    return add_raw(tag, [this, handler = std::move(handler)](auto connection, std::string initial) {
      handler(make_stream(std::move(connection), std::move(initial)));
    });
  }

  Result<void> add_peeked(std::string_view first_bytes, StreamHandler handler) {
    if (!handler) return fail(Errc::invalid_argument, "a service needs a handler");
    return claim(first_bytes, [&] {
      return port_->mux().add_peeked(first_bytes,
                                     [this, handler = std::move(handler)](auto connection, std::string initial) {
                                       handler(make_stream(std::move(connection), std::move(initial)));
                                     });
    });
  }

  Result<StreamListener> listen(Tag tag, std::size_t backlog) {
    auto listener = std::make_shared<StreamListenerImpl>(weak_from_this(), gate_, tag, backlog);
    const Result<void> added = add_raw(tag, [this, listener](auto connection, std::string initial) {
      if (!listener->has_room()) {
        ++backlog_full_;
        return;
      }
      listener->add(make_stream(std::move(connection), std::move(initial)));
    });
    if (!added) return fail(added.error());
    const Lock lock(mutex_);
    std::erase_if(listeners_, [](const auto& weak) { return weak.expired(); });
    listeners_.push_back(listener);
    if (closed_) listener->end();
    return StreamListener(std::move(listener));
  }

  void remove(Tag tag) {
    on_loop([&] {
      if (!std::erase(claimed_, tag)) return;
      port_->mux().remove(tag);
    });
  }

  void dial(const Address& address, Tag tag, std::chrono::milliseconds deadline,
            std::function<void(Result<Stream>)> done) {
    gate_->post_or_drop(
        [self = shared_from_this(), address, tag, deadline, shared = std::make_shared<DialDone>(std::move(done))] {
          self->dial_now(address, tag, deadline, shared);
        });
  }

  Result<Stream> dial_and_wait(const Address& address, Tag tag, std::chrono::milliseconds deadline) {
    if (gate_->is_current()) return would_deadlock();
    auto promise = std::make_shared<std::promise<Result<Stream>>>();
    auto future = promise->get_future();
    dial(address, tag, deadline, [promise](Result<Stream> result) { promise->set_value(std::move(result)); });
    return future.get();
  }

  Address address() {
    Address address;
    on_loop([&] { address = port_->mux().address(); });
    return address;
  }

  StreamMuxStats stats() {
    on_loop([&] {
      const StreamMuxStats stats = port_->mux().stats();
      const Lock lock(mutex_);
      last_stats_ = stats;
    });
    const Lock lock(mutex_);
    last_stats_.backlog_full = backlog_full_;
    return last_stats_;
  }

  void close() {
    std::vector<std::weak_ptr<StreamImpl>> streams;
    std::vector<std::weak_ptr<StreamListenerImpl>> listeners;
    stats();  // the last ones, for who asks later
    {
      const Lock lock(mutex_);
      if (std::exchange(closed_, true)) return;
    }
    on_loop([&] {
      for (const Tag tag : std::exchange(claimed_, {})) port_->mux().remove(tag);
      if (owns_port_) port_->mux().close();
      for (auto& [id, dial] : std::exchange(dials_, {})) {
        dial.handle.reset();
        (*dial.done)(fail(Errc::closed, "the mux is closed"));
      }
    });
    {
      const Lock lock(mutex_);
      streams.swap(streams_);
      listeners.swap(listeners_);
    }
    for (const auto& weak : listeners) {
      if (const auto listener = weak.lock()) listener->end();
    }
    // All have ended before a peer is told: it may be one of them.
    for (const auto& weak : streams) {
      if (const auto stream = weak.lock()) stream->end();
    }
    for (const auto& weak : streams) {
      if (const auto stream = weak.lock()) stream->drop();
    }
    gate_->close();
    if (owns_port_) stop_port();
  }

 private:
  struct Dial {
    std::shared_ptr<void> handle;
    std::shared_ptr<DialDone> done;
  };

  template <class F>
  void on_loop(F&& function) {
    if (port_->loop().is_current()) return function();
    port_->run_and_wait([&] { function(); });
  }

  Result<void> add_raw(Tag tag, net::ServiceHandler handler) {
    if (database_tags_reserved_ && tag <= 0x08) {
      return fail(Errc::invalid_argument, fmt::format("tag 0x{:02x} belongs to the database", tag));
    }
    const char byte = static_cast<char>(tag);
    return claim(std::string_view(&byte, 1), [&] { return port_->mux().add(tag, std::move(handler)); });
  }

  template <class F>
  Result<void> claim(std::string_view first_bytes, F&& add) {
    Result<void> result = fail(Errc::closed, "the mux is closed");
    on_loop([&] {
      {
        const Lock lock(mutex_);
        if (closed_) return;
      }
      result = add();
      if (!result) return;
      for (const char byte : first_bytes) claimed_.push_back(static_cast<Tag>(byte));
    });
    return result;
  }

  /// Thread: loop.
  Stream make_stream(std::unique_ptr<net::Connection> connection, std::string initial) {
    auto impl = std::make_shared<StreamImpl>(gate_, std::move(connection), std::move(initial));
    {
      const Lock lock(mutex_);
      if (streams_.size() >= 2 * streams_alive_) {
        std::erase_if(streams_, [](const auto& weak) { return weak.expired(); });
        streams_alive_ = std::max<std::size_t>(streams_.size(), 16);
      }
      streams_.push_back(impl);
    }
    impl->begin();
    return Stream(std::move(impl));
  }

  void dial_now(const Address& address, Tag tag, std::chrono::milliseconds deadline,
                const std::shared_ptr<DialDone>& done) {
    {
      const Lock lock(mutex_);
      if (closed_) return (*done)(fail(Errc::closed, "the mux is closed"));
    }
    const std::uint64_t id = ++last_dial_;
    Dial& dial = dials_[id];
    dial.done = done;
    dial.handle = port_->transport().dial(address, std::clamp(deadline, std::chrono::milliseconds(0), deadline_max),
                                          [this, id, tag](Result<std::unique_ptr<net::Connection>> connection) {
                                            const auto self = shared_from_this();  // `done` may drop the mux
                                            const std::shared_ptr<DialDone> completion = dials_.at(id).done;
                                            dials_.erase(id);
                                            if (!connection) return (*completion)(fail(connection.error()));
                                            (*connection)->send(SharedBytes(std::string(1, static_cast<char>(tag))));
                                            (*completion)(make_stream(std::move(*connection), {}));
                                          });
  }

  void stop_port() {
    if (!port_->loop().is_current()) return port_->stop();
    // A thread cannot wait for its own end; whoever holds the port last leaves it to this one.
    std::thread([port = port_] { port->stop(); }).detach();
  }

  const std::shared_ptr<net::Port> port_;
  const bool owns_port_;
  const bool database_tags_reserved_;
  const std::shared_ptr<Gate> gate_;

  // Thread: loop.
  std::vector<Tag> claimed_;
  std::unordered_map<std::uint64_t, Dial> dials_;
  std::uint64_t last_dial_ = 0;

  std::mutex mutex_;
  std::vector<std::weak_ptr<StreamImpl>> streams_;
  std::size_t streams_alive_ = 16;
  std::vector<std::weak_ptr<StreamListenerImpl>> listeners_;
  StreamMuxStats last_stats_;
  bool closed_ = false;
  std::atomic<std::uint64_t> backlog_full_{0};
};

void StreamListenerImpl::close() {
  if (!end()) return;
  if (const auto mux = mux_.lock()) mux->remove(tag_);
}

}  // namespace detail

// --- Stream --------------------------------------------------------------------------------------------------------

Stream::Stream(std::shared_ptr<detail::StreamImpl> impl) : impl_(std::move(impl)) {}
Stream::Stream(Stream&&) noexcept = default;
Stream& Stream::operator=(Stream&& other) noexcept {
  if (this == &other) return *this;
  close();
  impl_ = std::move(other.impl_);
  return *this;
}
Stream::~Stream() {
  close();
}

Result<Bytes> Stream::read(std::size_t max, std::chrono::milliseconds deadline) {
  if (!impl_) return fail(Error(Errc::closed));
  return impl_->read(max, deadline);
}
Result<Bytes> Stream::read_exactly(std::size_t count, std::chrono::milliseconds deadline) {
  if (!impl_) return fail(Error(Errc::closed));
  return impl_->read_exactly(count, deadline);
}
Result<void> Stream::write(std::string_view bytes, std::chrono::milliseconds deadline) {
  if (!impl_) return fail(Error(Errc::closed));
  return impl_->write(bytes, deadline);
}
void Stream::async_read(std::size_t max, ReadDone done) {
  if (!impl_) return done(fail(Error(Errc::closed)));
  impl_->async_read(max, std::move(done));
}
void Stream::async_write(Bytes bytes, WriteDone done) {
  if (!impl_) return done(fail(Error(Errc::closed)));
  impl_->async_write(std::move(bytes), std::move(done));
}
void Stream::finish_writing() {
  if (impl_) impl_->finish_writing();
}
void Stream::close() {
  if (impl_) impl_->close();
}
Address Stream::remote() const {
  return impl_ ? impl_->remote() : Address();
}

// --- StreamListener ------------------------------------------------------------------------------------------------

StreamListener::StreamListener(std::shared_ptr<detail::StreamListenerImpl> impl) : impl_(std::move(impl)) {}
StreamListener::StreamListener(StreamListener&&) noexcept = default;
StreamListener& StreamListener::operator=(StreamListener&& other) noexcept {
  if (this == &other) return *this;
  close();
  impl_ = std::move(other.impl_);
  return *this;
}
StreamListener::~StreamListener() {
  close();
}
Result<Stream> StreamListener::accept(std::chrono::milliseconds deadline) {
  if (!impl_) return fail(Error(Errc::closed));
  return impl_->accept(deadline);
}
void StreamListener::close() {
  if (impl_) impl_->close();
}

// --- StreamMux -----------------------------------------------------------------------------------------------------

StreamMux::StreamMux(std::shared_ptr<detail::StreamMuxImpl> impl) : impl_(std::move(impl)) {}
StreamMux::StreamMux(StreamMux&&) noexcept = default;
StreamMux& StreamMux::operator=(StreamMux&& other) noexcept {
  if (this == &other) return *this;
  close();
  impl_ = std::move(other.impl_);
  return *this;
}
StreamMux::~StreamMux() {
  close();
}

Result<StreamMux> StreamMux::open(StreamMuxOptions options) {
  const LogSink sink = log_sink_or_default(options.log_sink);
  auto port = net::Port::start(
      {.unclassified_max = options.unclassified_max,
       .classify_timeout = options.classify_timeout,
       .connections_max = options.connections_max,
       .connections_per_address_max = options.connections_per_address_max,
       .reserved_for_peers = 0,
       .log_sink = sink},
      [sink](const Error& error) { log_line(sink, LogLevel::error, "port: a handler threw: {}", error.message()); });
  StreamMux mux = net::make_stream_mux(std::move(port), true, false);
  if (!options.listen.empty()) {
    const Result<void> listening = mux.impl_->open(options.listen);
    if (!listening) return fail(listening.error());
  }
  return mux;
}

Result<void> StreamMux::service(Tag tag, StreamHandler handler) {
  if (!impl_) return fail(Error(Errc::closed));
  return impl_->add(tag, std::move(handler));
}
Result<void> StreamMux::peeked_service(std::string_view first_bytes, StreamHandler handler) {
  if (!impl_) return fail(Error(Errc::closed));
  return impl_->add_peeked(first_bytes, std::move(handler));
}
void StreamMux::remove_service(Tag tag) {
  if (impl_) impl_->remove(tag);
}
Result<StreamListener> StreamMux::listen(Tag tag, std::size_t backlog) {
  if (!impl_) return fail(Error(Errc::closed));
  return impl_->listen(tag, backlog);
}
Result<Stream> StreamMux::dial(const Address& address, Tag tag, std::chrono::milliseconds deadline) {
  if (!impl_) return fail(Error(Errc::closed));
  return impl_->dial_and_wait(address, tag, deadline);
}
void StreamMux::async_dial(const Address& address, Tag tag, std::chrono::milliseconds deadline,
                           std::function<void(Result<Stream>)> done) {
  if (!impl_) return done(fail(Error(Errc::closed)));
  impl_->dial(address, tag, deadline, std::move(done));
}
Address StreamMux::address() const {
  return impl_ ? impl_->address() : Address();
}
StreamMuxStats StreamMux::stats() const {
  return impl_ ? impl_->stats() : StreamMuxStats();
}
void StreamMux::close() {
  if (impl_) impl_->close();
}

namespace net {

StreamMux make_stream_mux(std::shared_ptr<Port> port, bool owns_port, bool database_tags_reserved) {
  return StreamMux(std::make_shared<detail::StreamMuxImpl>(std::move(port), owns_port, database_tags_reserved));
}

}  // namespace net

}  // namespace flotilla
