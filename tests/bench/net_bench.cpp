// What the port costs over a bare socket: `net_bench [seconds per line]`.
//
// Round trips of one 64-byte frame over loopback, between two ports in one process and in two; frames per second when
// they may be batched; each beside blocking sockets that do the same with no loop, no frames and no checksums. The
// machine's speed at system calls and wake-ups is in both, so the ratios say more than the times.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <future>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/address.hpp"
#include "net/frame.hpp"
#include "net/link.hpp"
#include "net/port.hpp"

using namespace flotilla;
using namespace flotilla::net;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::size_t body_bytes = 64;
constexpr std::size_t message_bytes = frame_header_bytes + body_bytes;
constexpr std::uint8_t echo_type = 1;
constexpr std::uint8_t count_type = 2;
constexpr std::uint64_t frames_per_answer = 1000;

std::chrono::milliseconds span(1000);

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::exit(1);
}

/// Times of single round trips; median and 99th percentile.
struct Trips {
  std::vector<double> micros;
  double at(double part) {
    if (micros.empty()) return 0;
    const auto index = static_cast<std::size_t>(part * static_cast<double>(micros.size() - 1));
    std::nth_element(micros.begin(), micros.begin() + static_cast<std::ptrdiff_t>(index), micros.end());
    return micros[index];
  }
};

double micros_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

// --- bare sockets --------------------------------------------------------------------------------------------------

int listen_bare(Address& address) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&at), size) != 0 || ::listen(fd, 8) != 0) give_up("listen");
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size);
  address = format_address("127.0.0.1", ntohs(at.sin_port));
  return fd;
}

void no_delay(int fd) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int dial_bare(const Address& address) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(parse_address(address)->port);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) give_up("connect");
  no_delay(fd);
  return fd;
}

bool read_all(int fd, char* to, std::size_t count) {
  while (count > 0) {
    const ssize_t got = ::recv(fd, to, count, 0);
    if (got <= 0) return false;
    to += got;
    count -= static_cast<std::size_t>(got);
  }
  return true;
}

void serve_bare(int listener) {
  const int fd = ::accept(listener, nullptr, nullptr);
  no_delay(fd);
  char buffer[message_bytes];
  while (read_all(fd, buffer, sizeof buffer)) {
    if (::send(fd, buffer, sizeof buffer, MSG_NOSIGNAL) < 0) break;
  }
  ::close(fd);
}

Trips ping_bare(const Address& address) {
  const int fd = dial_bare(address);
  char buffer[message_bytes] = {};
  Trips trips;
  const auto end = Clock::now() + span;
  for (auto start = Clock::now(); start < end; start = Clock::now()) {
    if (::send(fd, buffer, sizeof buffer, MSG_NOSIGNAL) < 0 || !read_all(fd, buffer, sizeof buffer)) give_up("ping");
    trips.micros.push_back(micros_since(start));
  }
  ::close(fd);
  return trips;
}

/// Messages per second through one connection in writes of 64 KiB.
double flood_bare() {
  Address address;
  const int listener = listen_bare(address);
  std::uint64_t received = 0;
  std::thread reader([&] {
    const int fd = ::accept(listener, nullptr, nullptr);
    std::vector<char> buffer(256u << 10);
    for (ssize_t got = 1; got > 0;) {
      got = ::recv(fd, buffer.data(), buffer.size(), 0);
      if (got > 0) received += static_cast<std::uint64_t>(got);
    }
    ::close(fd);
  });
  const int fd = dial_bare(address);
  const std::string block(64u << 10, 'x');
  const auto start = Clock::now();
  while (Clock::now() - start < span) {
    if (::send(fd, block.data(), block.size(), MSG_NOSIGNAL) < 0) give_up("flood");
  }
  ::close(fd);
  reader.join();
  const double seconds = micros_since(start) / 1e6;
  ::close(listener);
  return static_cast<double>(received) / message_bytes / seconds;
}

// --- ports ---------------------------------------------------------------------------------------------------------

const ClusterId cluster{1, 1};

/// Echoes frames, and answers every thousandth of the counted ones.
class Server {
 public:
  Server() : port_(Port::start({}, [](const Error& error) { fmt::print(stderr, "{}\n", error.message()); })) {
    port_->run_and_wait([this] {
      if (!port_->mux().listen("127.0.0.1:0")) give_up("listen");
      address_ = port_->mux().address();
      server_.emplace(
          port_->loop(), port_->mux(), LinkServer::Options{.local = {cluster, NodeId{2}, 1, {}}},
          LinkServer::Events{.up = [](auto, const Hello&) -> Result<void> { return {}; },
                             .frame = [this](auto id, ReceivedFrame frame) { answer(id, std::move(frame)); },
                             .down = [](auto, const Error&) {}});
    });
  }
  ~Server() {
    port_->run_and_wait([this] { server_.reset(); });
    port_->stop();
  }
  const Address& address() const { return address_; }

 private:
  void answer(LinkServer::ConnectionId id, ReceivedFrame frame) {
    if (frame.type == count_type && ++counted_ % frames_per_answer != 0) return;
    server_->send(id, Frame{.type = frame.type, .parts = {std::move(frame.body)}});
  }
  const std::shared_ptr<Port> port_;
  Address address_;
  std::optional<LinkServer> server_;
  std::uint64_t counted_ = 0;
};

class Client {
 public:
  explicit Client(const Address& address)
      : port_(Port::start({}, [](const Error& error) { fmt::print(stderr, "{}\n", error.message()); })) {
    std::promise<void> up;
    port_->run_and_wait([&] {
      link_.emplace(port_->loop(), port_->transport(),
                    Link::Options{.address = address, .local = {cluster, NodeId{1}, 1, {}}},
                    Link::Events{.up = [&up](const Hello&) { up.set_value(); },
                                 .frame = [this](ReceivedFrame) { on_answer(); },
                                 .down = [](const Error& error) { fmt::print(stderr, "{}\n", error.message()); }});
    });
    up.get_future().wait();
  }
  ~Client() {
    port_->run_and_wait([this] { link_.reset(); });
    port_->stop();
  }

  Trips ping() {
    Trips trips;
    std::promise<void> done;
    port_->run_and_wait([&] {
      const auto end = Clock::now() + span;
      on_answer = [this, &trips, &done, end, start = Clock::now()]() mutable {
        trips.micros.push_back(micros_since(start));
        start = Clock::now();
        if (start >= end) return done.set_value();
        send(echo_type);
      };
      send(echo_type);
    });
    done.get_future().wait();
    return trips;
  }

  /// Frames per second, a few thousand under way.
  double flood() {
    std::promise<double> done;
    port_->run_and_wait([&] {
      const auto start = Clock::now();
      const auto burst = [this] {
        for (std::uint64_t count = 0; count < frames_per_answer; ++count) send(count_type);
      };
      on_answer = [&done, burst, start, answered = std::uint64_t{0}]() mutable {
        ++answered;
        const double seconds = micros_since(start) / 1e6;
        if (Clock::now() - start < span) return burst();
        if (answered != 0) done.set_value(static_cast<double>(answered * frames_per_answer) / seconds);
        answered = 0;
      };
      for (int count = 0; count < 4; ++count) burst();
    });
    const double rate = done.get_future().get();
    return rate;
  }

 private:
  void send(std::uint8_t type) {
    if (!link_->send(Frame{.type = type, .parts = {body_}})) std::abort();
  }
  const std::shared_ptr<Port> port_;
  std::optional<Link> link_;
  const SharedBytes body_{std::string(body_bytes, 'x')};
  std::function<void()> on_answer = [] {};
};

// --- two processes -------------------------------------------------------------------------------------------------

/// Runs `serve` in a child process; it writes the address it listens on to the descriptor and returns when told to by
/// the end of its standard input.
class Child {
 public:
  explicit Child(const std::function<void(int out, int in)>& serve) {
    int up[2];
    int down[2];
    if (::pipe(up) != 0 || ::pipe(down) != 0) give_up("pipe");
    pid_ = ::fork();
    if (pid_ < 0) give_up("fork");
    if (pid_ == 0) {
      ::close(up[0]);
      ::close(down[1]);
      serve(up[1], down[0]);
      ::_exit(0);
    }
    ::close(up[1]);
    ::close(down[0]);
    hold_ = down[1];
    char buffer[100];
    const ssize_t count = ::read(up[0], buffer, sizeof buffer);
    if (count <= 0) give_up("child");
    address = Address(buffer, static_cast<std::size_t>(count));
    ::close(up[0]);
  }
  Child(const Child&) = delete;
  ~Child() {
    ::close(hold_);
    ::waitpid(pid_, nullptr, 0);
  }
  Address address;

 private:
  pid_t pid_ = -1;
  int hold_ = -1;
};

void announce(int out, const Address& address) {
  if (::write(out, address.data(), address.size()) < 0) give_up("announce");
  ::close(out);
}

void wait_for_end(int in) {
  char byte;
  while (::read(in, &byte, 1) > 0) {
  }
}

void show(const char* what, Trips bare, Trips port) {
  fmt::print("{:<34} bare {:6.1f} us (p99 {:6.1f})   port {:6.1f} us (p99 {:6.1f})   ratio {:.2f}\n", what,
             bare.at(0.5), bare.at(0.99), port.at(0.5), port.at(0.99), port.at(0.5) / bare.at(0.5));
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1) span = std::chrono::milliseconds(static_cast<int>(std::atof(arguments[1]) * 1000));

  Trips bare_apart;
  {
    Child child([](int out, int in) {
      Address address;
      const int listener = listen_bare(address);
      announce(out, address);
      serve_bare(listener);
      wait_for_end(in);
    });
    bare_apart = ping_bare(child.address);
  }
  Trips port_apart;
  {
    Child child([](int out, int in) {
      const Server server;
      announce(out, server.address());
      wait_for_end(in);
    });
    port_apart = Client(child.address).ping();
  }
  show("round trip, two processes", std::move(bare_apart), std::move(port_apart));

  Trips bare_together;
  {
    Address address;
    const int listener = listen_bare(address);
    std::thread server([listener] { serve_bare(listener); });
    bare_together = ping_bare(address);
    server.join();
    ::close(listener);
  }
  const Server server;
  Client client(server.address());
  show("round trip, one process", std::move(bare_together), client.ping());

  const double bare = flood_bare();
  const double port = Client(server.address()).flood();
  fmt::print("{:<34} bare {:6.2f} M/s                port {:6.2f} M/s                ratio {:.2f}\n",
             "64-byte frames, batched", bare / 1e6, port / 1e6, bare / port);
  return 0;
}
