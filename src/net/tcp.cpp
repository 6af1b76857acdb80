#include "net/tcp.hpp"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <optional>
#include <thread>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.hpp"
#include "net/address.hpp"

namespace flotilla::net {
namespace {

using Tcp = boost::asio::ip::tcp;
using ErrorCode = boost::system::error_code;

constexpr std::size_t first_read_bytes = 16u << 10;  // per connection; longer bursts go through the loop's scratch
constexpr int reads_per_turn = 4;  // of scratch_bytes, so that one connection leaves others their turn
constexpr std::size_t parts_per_write = 64;
constexpr std::size_t joined_part_bytes_max = 1024;
constexpr std::size_t joined_bytes_max = 64u << 10;
constexpr std::size_t write_bytes_per_turn = 4u << 20;
constexpr int accepts_per_turn = 64;
constexpr int accept_queue = 1024;
constexpr Duration accept_back_off = std::chrono::milliseconds(100);
constexpr int keep_alive_idle_seconds = 10;
constexpr int keep_alive_interval_seconds = 5;
constexpr int keep_alive_probes = 4;
constexpr unsigned user_timeout_milliseconds = 60'000;
constexpr int lookups_max = 4;

std::string reason(int error) {
  return std::error_code(error, std::generic_category()).message();
}

Error socket_error(std::string_view what, int error) {
  return Error(Errc::io_error, fmt::format("{}: {}", what, reason(error)));
}

/// A socket address of either family.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  int family() const { return storage.ss_family; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

/// "host:port"; an IPv4 address inside IPv6 is shown (and counted) as what it is.
Address to_address(const SocketAddress& from) {
  char text[INET6_ADDRSTRLEN] = {};
  if (from.family() == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(from.storage);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    return format_address(text, ntohs(v4.sin_port));
  }
  if (from.family() == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(from.storage);
    if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
      inet_ntop(AF_INET, v6.sin6_addr.s6_addr + 12, text, sizeof text);
    } else {
      inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    }
    return format_address(text, ntohs(v6.sin6_port));
  }
  return {};
}

Address local_address(int fd) {
  SocketAddress address;
  address.size = sizeof address.storage;
  if (getsockname(fd, address.get(), &address.size) != 0) return {};
  return to_address(address);
}

/// Blocks unless `numeric`. An empty vector and a reason when there is none.
std::vector<SocketAddress> look_up(const HostPort& wanted, bool numeric, bool passive, std::string& why) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = (numeric ? AI_NUMERICHOST : 0) | (passive ? AI_PASSIVE : 0) | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(wanted.port);
  const int error = getaddrinfo(wanted.host.empty() ? nullptr : wanted.host.c_str(), port.c_str(), &hints, &found);
  std::vector<SocketAddress> addresses;
  if (error != 0) {
    why = error == EAI_SYSTEM ? reason(errno) : gai_strerror(error);
    return addresses;
  }
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    if (at->ai_addrlen > sizeof(sockaddr_storage)) continue;
    SocketAddress& address = addresses.emplace_back();
    std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
    address.size = at->ai_addrlen;
  }
  freeaddrinfo(found);
  return addresses;
}

void set_option(int fd, int level, int name, int value) {
  setsockopt(fd, level, name, &value, sizeof value);  // a refusal costs comfort, not correctness
}

void set_stream_options(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, keep_alive_idle_seconds);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, keep_alive_interval_seconds);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, keep_alive_probes);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(user_timeout_milliseconds));
}

/// Owns a descriptor until somebody takes it.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

Tcp protocol_of(int family) {
  return family == AF_INET6 ? Tcp::v6() : Tcp::v4();
}

// --- one connection ------------------------------------------------------------------------------------------------

/// What outlives its TcpConnection while the operating system still has an operation of it.
class TcpSocket final : public Endpoint, public std::enable_shared_from_this<TcpSocket> {
 public:
  TcpSocket(std::shared_ptr<AsioLoop> loop, Tcp::socket socket, Address remote)
      : loop_(std::move(loop)), socket_(std::move(socket)), remote_(std::move(remote)) {
    loop_->add(*this);
  }

  void start(ConnectionHandler& handler) {
    handler_ = &handler;
    pump_later();
  }
  void pause() { paused_ = true; }
  void resume() {
    if (!std::exchange(paused_, false)) return;
    pump_later();
  }
  void send(std::vector<SharedBytes> parts) {
    if (dead_ || broken_ || finishing_) return;
    for (SharedBytes& part : parts) {
      if (part.empty()) continue;
      unsent_bytes_ += part.size();
      queue(std::move(part));
    }
    flush_later();
  }
  void finish() {
    if (dead_ || broken_ || finishing_) return;
    finishing_ = true;
    flush_later();
  }
  std::size_t unsent_bytes() const { return unsent_bytes_; }
  const Address& remote() const { return remote_; }

  void drop() {
    if (dead_) return;
    loop_->remove(*this);
    shut();
  }

  void shut() override {
    // What this turn queued leaves with it, as far as the socket takes it: a farewell would be lost otherwise.
    if (!dead_ && !broken_ && !writing_ && !unsent_.empty()) static_cast<void>(write_parts());
    dead_ = true;
    handler_ = nullptr;
    close();
  }

  void flush() override {
    flush_scheduled_ = false;
    if (dead_ || broken_ || writing_) return;
    std::size_t budget = write_bytes_per_turn;
    while (!unsent_.empty()) {
      if (budget == 0) return flush_later();
      const ssize_t written = write_parts();
      if (written < 0) {
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) return wait_writable();
        return fail(socket_error("writing", errno));
      }
      consume(static_cast<std::size_t>(written));
      budget -= std::min(budget, static_cast<std::size_t>(written));
    }
    if (finishing_ && !std::exchange(finished_, true)) ::shutdown(socket_.native_handle(), SHUT_WR);
    if (std::exchange(told_drained_, true) || handler_ == nullptr) return;
    handler_->on_drained();
  }

 private:
  void close() {
    ErrorCode ignored;
    socket_.close(ignored);
    unsent_.clear();
    unsent_bytes_ = 0;
  }

  void pump_later() {
    if (dead_ || std::exchange(pump_scheduled_, true)) return;
    loop_->post([self = shared_from_this()] {
      self->pump_scheduled_ = false;
      self->pump();
    });
  }

  void flush_later() {
    told_drained_ = told_drained_ && unsent_.empty();
    if (std::exchange(flush_scheduled_, true)) return;
    loop_->flush_later(shared_from_this());
  }

  /// Delivers what is held back, then reads on.
  void pump() {
    if (handler_ == nullptr) return;
    if (broken_) return tell_broken();
    if (paused_) return;
    if (!held_.empty()) {
      handler_->on_data(std::exchange(held_, {}));
      if (!wants_data()) return;
    }
    if (ended_) return tell_end();
    read_later();
  }

  bool wants_data() const { return handler_ != nullptr && !paused_; }

  void read_later() {
    if (!std::exchange(read_scheduled_, true)) loop_->listen_later(shared_from_this());
  }

  void listen_on() override {
    read_scheduled_ = false;
    if (reading_ || !wants_data() || ended_ || broken_) return;
    reading_ = true;
    if (!first_) first_.reset(new char[first_read_bytes]);
    socket_.async_read_some(
        boost::asio::buffer(first_.get(), first_read_bytes),
        [self = shared_from_this()](const ErrorCode& error, std::size_t count) { self->on_read(error, count); });
  }

  void on_read(const ErrorCode& error, std::size_t count) {
    reading_ = false;
    if (dead_ || broken_) return;
    if (error == boost::asio::error::eof) {
      ended_ = true;
      if (wants_data()) tell_end();
      return;
    }
    if (error) return fail(socket_error("reading", error.value()));
    const std::string_view bytes(first_.get(), count);
    if (!wants_data()) {
      held_ = bytes;  // at most this one buffer: no read follows until resume()
      return;
    }
    handler_->on_data(bytes);
    // A short read emptied the socket: waiting for the next edge needs no further system call. A full one did not.
    if (count == first_read_bytes) read_burst();
    if (wants_data()) read_later();
  }

  void read_burst() {
    for (int round = 0; round < reads_per_turn && wants_data(); ++round) {
      const ssize_t count = ::recv(socket_.native_handle(), loop_->scratch(), AsioLoop::scratch_bytes, MSG_DONTWAIT);
      if (count > 0) {
        handler_->on_data(std::string_view(loop_->scratch(), static_cast<std::size_t>(count)));
        continue;
      }
      if (count == 0) {
        ended_ = true;
        return tell_end();
      }
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) fail(socket_error("reading", errno));
      return;
    }
  }

  void tell_end() {
    if (!std::exchange(told_end_, true)) handler_->on_end();
  }

  void fail(Error error) {
    if (broken_) return;
    broken_.emplace(std::move(error));
    close();
    if (handler_ != nullptr) tell_broken();
  }

  void tell_broken() {
    ConnectionHandler* const handler = std::exchange(handler_, nullptr);  // nothing follows
    handler->on_closed(*broken_);
  }

  ssize_t write_parts() {
    iovec parts[parts_per_write];
    std::size_t count = 0;
    for (const Piece& piece : unsent_) {
      if (count == parts_per_write) break;
      const std::string_view bytes = piece.view().substr(count == 0 ? front_written_ : 0);
      parts[count].iov_base = const_cast<char*>(bytes.data());
      parts[count].iov_len = bytes.size();
      ++count;
    }
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = count;
    // A peer that is gone is an error to handle, not a signal that ends the host.
    return ::sendmsg(socket_.native_handle(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  }

  /// Bytes to send: a part as it came, or several short ones copied together.
  struct Piece {
    SharedBytes part;
    std::string joined;
    std::string_view view() const { return joined.empty() ? part.view() : std::string_view(joined); }
  };

  /// Copying a short part is cheaper than giving the kernel one more address to gather from, and a turn's many small
  /// frames leave in a few system calls.
  void queue(SharedBytes part) {
    if (part.size() > joined_part_bytes_max) {
      unsent_.push_back({std::move(part), {}});
      return;
    }
    if (unsent_.empty() || unsent_.back().joined.empty() || unsent_.back().joined.size() >= joined_bytes_max) {
      if (unsent_.empty()) {  // alone so far, and mostly it stays so: not worth a copy
        unsent_.push_back({std::move(part), {}});
        return;
      }
      unsent_.push_back({{}, {}});
    }
    unsent_.back().joined += part.view();
  }

  void consume(std::size_t written) {
    unsent_bytes_ -= written;
    while (written > 0) {
      const std::size_t left = unsent_.front().view().size() - front_written_;
      if (written < left) {
        front_written_ += written;
        return;
      }
      written -= left;
      front_written_ = 0;
      unsent_.pop_front();
    }
  }

  void wait_writable() {
    writing_ = true;
    socket_.async_wait(Tcp::socket::wait_write, [self = shared_from_this()](const ErrorCode& error) {
      self->writing_ = false;
      if (self->dead_ || self->broken_) return;
      if (error) return self->fail(socket_error("writing", error.value()));
      self->flush_later();
    });
  }

  const std::shared_ptr<AsioLoop> loop_;
  Tcp::socket socket_;
  const Address remote_;
  ConnectionHandler* handler_ = nullptr;

  std::unique_ptr<char[]> first_;
  std::string_view held_;  // arrived while paused; in first_
  bool paused_ = false;
  bool reading_ = false;
  bool ended_ = false;
  bool told_end_ = false;
  bool pump_scheduled_ = false;
  bool read_scheduled_ = false;

  std::deque<Piece> unsent_;
  std::size_t unsent_bytes_ = 0;
  std::size_t front_written_ = 0;
  bool flush_scheduled_ = false;
  bool told_drained_ = true;
  bool writing_ = false;  // the operating system's buffer is full
  bool finishing_ = false;
  bool finished_ = false;

  bool dead_ = false;            // dropped by its owner, or by the end of the loop
  std::optional<Error> broken_;  // by the peer or the network
};

class TcpConnection final : public Connection {
 public:
  explicit TcpConnection(std::shared_ptr<TcpSocket> socket) : socket_(std::move(socket)) {}
  ~TcpConnection() override { socket_->drop(); }

  void start(ConnectionHandler& handler) override { socket_->start(handler); }
  void pause() override { socket_->pause(); }
  void resume() override { socket_->resume(); }
  void send(std::vector<SharedBytes> parts) override { socket_->send(std::move(parts)); }
  std::size_t unsent_bytes() const override { return socket_->unsent_bytes(); }
  void finish() override { socket_->finish(); }
  Address remote() const override { return socket_->remote(); }

 private:
  const std::shared_ptr<TcpSocket> socket_;
};

/// Takes over a connected descriptor.
Result<std::unique_ptr<Connection>> make_connection(const std::shared_ptr<AsioLoop>& loop, Tcp::socket socket,
                                                    Address remote) {
  ErrorCode error;
  socket.native_non_blocking(true, error);  // tells Asio that it is, which saves it asking at each read
  if (error) return fail(socket_error("preparing a socket", error.value()));
  return std::make_unique<TcpConnection>(std::make_shared<TcpSocket>(loop, std::move(socket), std::move(remote)));
}

// --- listening -----------------------------------------------------------------------------------------------------

class TcpAcceptor final : public Endpoint, public std::enable_shared_from_this<TcpAcceptor> {
 public:
  TcpAcceptor(std::shared_ptr<AsioLoop> loop, Tcp::acceptor acceptor, AcceptEvents events)
      : loop_(std::move(loop)), acceptor_(std::move(acceptor)), events_(std::move(events)) {
    loop_->add(*this);
  }

  void wait() {
    acceptor_.async_wait(Tcp::acceptor::wait_read, [self = shared_from_this()](const ErrorCode& error) {
      if (self->dead_) return;
      if (error) return self->back_off(error.value());
      self->accept_some();
    });
  }
  Address address() { return local_address(acceptor_.native_handle()); }
  void drop() {
    if (dead_) return;
    loop_->remove(*this);
    if (timer_ != 0) loop_->cancel(timer_);
    shut();
  }
  void shut() override {
    dead_ = true;
    ErrorCode ignored;
    acceptor_.close(ignored);
  }

 private:
  void accept_some() {
    for (int count = 0; count < accepts_per_turn; ++count) {
      SocketAddress from;
      from.size = sizeof from.storage;
      Descriptor fd(::accept4(acceptor_.native_handle(), from.get(), &from.size, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (fd.get() < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK) break;
        if (errno == EINTR) continue;
        // Out of descriptors or memory, or the connection died in the queue: never a reason to stop listening, and
        // never one to spin.
        return back_off(errno);
      }
      accepted(std::move(fd), from);
      if (dead_) return;
    }
    wait();
  }

  void accepted(Descriptor fd, const SocketAddress& from) {
    set_stream_options(fd.get());
    Tcp::socket socket(loop_->io());
    ErrorCode error;
    socket.assign(protocol_of(from.family()), fd.get(), error);
    if (error) return events_.failed(socket_error("accepting", error.value()));
    fd.release();
    auto connection = make_connection(loop_, std::move(socket), to_address(from));
    if (!connection) return events_.failed(connection.error());
    events_.accepted(std::move(*connection));
  }

  void back_off(int error) {
    timer_ = loop_->after(accept_back_off, [self = shared_from_this()] {
      self->timer_ = 0;
      if (!self->dead_) self->accept_some();
    });
    events_.failed(socket_error("accepting", error));
  }

  const std::shared_ptr<AsioLoop> loop_;
  Tcp::acceptor acceptor_;
  const AcceptEvents events_;
  Loop::TimerId timer_ = 0;
  bool dead_ = false;
};

class TcpListener final : public Listener {
 public:
  explicit TcpListener(std::shared_ptr<TcpAcceptor> acceptor)
      : acceptor_(std::move(acceptor)), address_(acceptor_->address()) {}
  ~TcpListener() override { acceptor_->drop(); }
  Address address() const override { return address_; }

 private:
  const std::shared_ptr<TcpAcceptor> acceptor_;
  const Address address_;
};

/// A bound, listening descriptor, or -1 with errno.
int bind_and_listen(const SocketAddress& address) {
  Descriptor fd(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return -1;
  set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (::bind(fd.get(), address.get(), address.size) != 0) return -1;
  if (::listen(fd.get(), accept_queue) != 0) return -1;
  return fd.release();
}

Error listen_error(const Address& address, int error) {
  const bool taken = error == EADDRINUSE || error == EADDRNOTAVAIL || error == EACCES;
  return Error(taken ? Errc::address_in_use : Errc::io_error,
               fmt::format("listening on {}: {}", address, reason(error)));
}

// --- dialling ------------------------------------------------------------------------------------------------------

/// getaddrinfo cannot be cancelled and may take half a minute, so each runs on a detached thread that nobody waits for.
class Lookups {
 public:
  using Done = std::function<void(std::vector<SocketAddress>, std::string why)>;

  /// Thread: loop. Calls `done` later, on the loop.
  static void start(const std::shared_ptr<AsioLoop>& loop, HostPort wanted, Done done) {
    if (running_.fetch_add(1) >= lookups_max) {
      running_.fetch_sub(1);
      loop->after(std::chrono::milliseconds(20), [weak = std::weak_ptr(loop), wanted, done = std::move(done)] {
        if (auto again = weak.lock()) start(again, wanted, done);
      });
      return;
    }
    try {
      std::thread([weak = std::weak_ptr<AsioLoop>(loop), wanted, done] { run(weak, wanted, done); }).detach();
    } catch (const std::system_error& error) {
      running_.fetch_sub(1);
      loop->post([done, why = std::string(error.what())] { done({}, why); });
    }
  }

 private:
  static void run(const std::weak_ptr<AsioLoop>& weak, const HostPort& wanted, const Done& done) {
    std::string why;
    std::vector<SocketAddress> found = look_up(wanted, false, false, why);
    running_.fetch_sub(1);
    if (auto loop = weak.lock()) loop->post([done, found = std::move(found), why] { done(found, why); });
  }
  static inline std::atomic<int> running_{0};  // in this process
};

class TcpDialer final : public Endpoint, public std::enable_shared_from_this<TcpDialer> {
 public:
  TcpDialer(std::shared_ptr<AsioLoop> loop, Address address, Transport::DialDone done)
      : loop_(std::move(loop)), address_(std::move(address)), done_(std::move(done)), socket_(loop_->io()) {
    loop_->add(*this);
  }

  void start(Duration timeout) {
    timer_ = loop_->after(timeout, [self = shared_from_this()] {
      self->timer_ = 0;
      self->end(tl::unexpected(Error(Errc::timeout, fmt::format("dialling {}: no answer in time", self->address_))));
    });
    loop_->post([self = shared_from_this()] { self->look_up_host(); });
  }
  void cancel() {
    if (ended_) return;
    loop_->remove(*this);
    if (timer_ != 0) loop_->cancel(timer_);
    shut();
  }
  void shut() override {
    ended_ = true;
    ErrorCode ignored;
    socket_.close(ignored);
  }

 private:
  void look_up_host() {
    if (ended_) return;
    auto parsed = parse_address(address_);
    if (!parsed) return end(tl::unexpected(parsed.error()));
    std::string why;
    addresses_ = look_up(*parsed, true, false, why);
    if (!addresses_.empty()) return connect_next();
    Lookups::start(loop_, *parsed, [self = shared_from_this()](std::vector<SocketAddress> found, std::string reason) {
      if (self->ended_) return;
      self->addresses_ = std::move(found);
      self->why_ = std::move(reason);
      self->connect_next();
    });
  }

  void connect_next() {
    while (next_ < addresses_.size()) {
      const SocketAddress& to = addresses_[next_++];
      Descriptor fd(::socket(to.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      if (fd.get() < 0) {
        why_ = reason(errno);
        continue;
      }
      set_stream_options(fd.get());
      if (::connect(fd.get(), to.get(), to.size) != 0 && errno != EINPROGRESS && errno != EINTR) {
        why_ = reason(errno);
        continue;
      }
      ErrorCode error;
      socket_.assign(protocol_of(to.family()), fd.get(), error);
      if (error) {
        why_ = error.message();
        continue;
      }
      fd.release();
      socket_.async_wait(Tcp::socket::wait_write, [self = shared_from_this()](const ErrorCode& failed) {
        if (!self->ended_) self->on_writable(failed);
      });
      return;
    }
    end(tl::unexpected(Error(Errc::io_error, fmt::format("dialling {}: {}", address_, why_))));
  }

  void on_writable(const ErrorCode& failed) {
    int error = failed.value();
    socklen_t size = sizeof error;
    if (!failed) getsockopt(socket_.native_handle(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == 0 && connected_to_itself()) error = ECONNREFUSED;
    if (error == 0) return end(make_connection(loop_, std::move(socket_), to_address(addresses_[next_ - 1])));
    why_ = reason(error);
    ErrorCode ignored;
    socket_.close(ignored);
    connect_next();
  }

  /// TCP connects a loopback port that nobody listens on to itself if the dialler happens to get that very port.
  bool connected_to_itself() { return local_address(socket_.native_handle()) == to_address(addresses_[next_ - 1]); }

  void end(Result<std::unique_ptr<Connection>> result) {
    if (ended_) return;
    const auto self = shared_from_this();  // `done` may destroy the handle
    cancel();
    const Transport::DialDone done = std::move(done_);
    done(std::move(result));
  }

  const std::shared_ptr<AsioLoop> loop_;
  const Address address_;
  Transport::DialDone done_;
  Tcp::socket socket_;
  std::vector<SocketAddress> addresses_;
  std::size_t next_ = 0;
  std::string why_ = "no address found";
  Loop::TimerId timer_ = 0;
  bool ended_ = false;
};

struct DialHandle {
  explicit DialHandle(std::shared_ptr<TcpDialer> the_dialer) : dialer(std::move(the_dialer)) {}
  DialHandle(const DialHandle&) = delete;
  ~DialHandle() { dialer->cancel(); }
  const std::shared_ptr<TcpDialer> dialer;
};

}  // namespace

Result<std::unique_ptr<Listener>> TcpTransport::listen(const Address& address, AcceptEvents events) {
  auto parsed = parse_address(address);
  if (!parsed) return fail(parsed.error());
  std::string why;
  const std::vector<SocketAddress> addresses = look_up(*parsed, false, true, why);
  if (addresses.empty()) return fail(Errc::invalid_argument, fmt::format("listening on {}: {}", address, why));
  int error = 0;
  for (const SocketAddress& at : addresses) {
    Descriptor fd(bind_and_listen(at));
    if (fd.get() < 0) {
      error = errno;
      continue;
    }
    Tcp::acceptor acceptor(loop_->io());
    ErrorCode refused;
    acceptor.assign(protocol_of(at.family()), fd.get(), refused);
    if (refused) return fail(socket_error("listening", refused.value()));
    fd.release();
    auto listening = std::make_shared<TcpAcceptor>(loop_, std::move(acceptor), std::move(events));
    listening->wait();
    return std::make_unique<TcpListener>(std::move(listening));
  }
  return fail(listen_error(address, error));
}

std::shared_ptr<void> TcpTransport::dial(const Address& address, Duration timeout, DialDone done) {
  auto dialer = std::make_shared<TcpDialer>(loop_, address, std::move(done));
  dialer->start(timeout);
  return std::make_shared<DialHandle>(std::move(dialer));
}

}  // namespace flotilla::net
