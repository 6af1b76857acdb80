// What the port costs over a bare socket, on loopback: round trips of one 64-byte frame, and frames that may be
// batched; beside blocking sockets that do the same with no loop, no frames and no checksums. The machine's speed at
// system calls and wake-ups is in both, so the ratios say more than the times. And what the port's own code takes to
// tell a connection by its first byte.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <benchmark/benchmark.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/address.hpp"
#include "net/frame.hpp"
#include "net/link.hpp"
#include "net/port.hpp"
#include "support/sim_loop.hpp"

namespace {

using namespace flotilla;
using namespace flotilla::net;

constexpr std::size_t body_bytes = 64;
constexpr std::size_t message_bytes = frame_header_bytes + body_bytes;
constexpr std::uint8_t echo_type = 1;
constexpr std::uint8_t count_type = 2;
constexpr std::uint64_t frames_per_answer = 1000;

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::exit(1);
}

// --- bare sockets ----------------------------------------------------------------------------------------------------

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

// --- ports -----------------------------------------------------------------------------------------------------------

const ClusterId cluster{1, 1};

/// Echoes frames, and answers every thousandth of the counted ones.
class Server {
 public:
  Server() : port_(Port::start({}, [](const Error& error) { std::fprintf(stderr, "%s\n", error.message().c_str()); })) {
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
      : port_(Port::start({}, [](const Error& error) { std::fprintf(stderr, "%s\n", error.message().c_str()); })) {
    std::promise<void> up;
    port_->run_and_wait([&] {
      link_.emplace(
          port_->loop(), port_->transport(), Link::Options{.address = address, .local = {cluster, NodeId{1}, 1, {}}},
          Link::Events{.up = [&up](const Hello&) { up.set_value(); },
                       .frame = [this](ReceivedFrame) { on_answer(); },
                       .down = [](const Error& error) { std::fprintf(stderr, "%s\n", error.message().c_str()); }});
    });
    up.get_future().wait();
  }
  ~Client() {
    port_->run_and_wait([this] { link_.reset(); });
    port_->stop();
  }

  /// So many round trips, one after the other.
  void ping(std::int64_t count) {
    run(count, [this] { send(echo_type); });
  }
  /// So many times frames_per_answer frames, a few thousand of them under way.
  void flood(std::int64_t count) {
    constexpr std::int64_t under_way = 4;
    const auto burst = [this] {
      for (std::uint64_t frame = 0; frame < frames_per_answer; ++frame) send(count_type);
    };
    run(count, burst, under_way);
  }

 private:
  /// `ask` asks for one answer, again after each, until `count` came; `under_way` at once.
  template <class Ask>
  void run(std::int64_t count, Ask ask, std::int64_t under_way = 1) {
    std::promise<void> done;
    port_->run_and_wait([&] {
      const std::int64_t first = std::min(count, under_way);
      on_answer = [&done, ask, left = count, unasked = count - first]() mutable {
        if (--left == 0) return done.set_value();
        if (unasked == 0) return;
        --unasked;
        ask();
      };
      for (std::int64_t i = 0; i < first; ++i) ask();
    });
    done.get_future().wait();
  }
  void send(std::uint8_t type) {
    if (!link_->send(Frame{.type = type, .parts = {body_}})) std::abort();
  }
  const std::shared_ptr<Port> port_;
  std::optional<Link> link_;
  const SharedBytes body_{std::string(body_bytes, 'x')};
  std::function<void()> on_answer = [] {};
};

// --- both ------------------------------------------------------------------------------------------------------------

void socket_round_trip(benchmark::State& state) {
  Address address;
  const int listener = listen_bare(address);
  std::thread server([listener] { serve_bare(listener); });
  const int fd = dial_bare(address);
  char buffer[message_bytes] = {};
  for (auto _ : state) {
    if (::send(fd, buffer, sizeof buffer, MSG_NOSIGNAL) < 0 || !read_all(fd, buffer, sizeof buffer)) give_up("ping");
  }
  ::close(fd);
  server.join();
  ::close(listener);
}
BENCHMARK(socket_round_trip)->UseRealTime();

void port_round_trip(benchmark::State& state) {
  constexpr std::int64_t at_once = 100;
  const Server server;
  Client client(server.address());
  while (state.KeepRunningBatch(at_once)) client.ping(at_once);
}
BENCHMARK(port_round_trip)->UseRealTime();

/// Messages in writes of 64 KiB.
void socket_flood(benchmark::State& state) {
  Address address;
  const int listener = listen_bare(address);
  std::thread reader([listener] {
    const int fd = ::accept(listener, nullptr, nullptr);
    std::vector<char> buffer(256u << 10);
    while (::recv(fd, buffer.data(), buffer.size(), 0) > 0) {
    }
    ::close(fd);
  });
  const int fd = dial_bare(address);
  const std::string block(64u << 10, 'x');
  for (auto _ : state) {
    if (::send(fd, block.data(), block.size(), MSG_NOSIGNAL) < 0) give_up("flood");
  }
  ::close(fd);
  reader.join();
  ::close(listener);
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(block.size() / message_bytes));
}
BENCHMARK(socket_flood)->UseRealTime();

void port_flood(benchmark::State& state) {
  constexpr std::int64_t at_once = 100;
  const Server server;
  Client client(server.address());
  while (state.KeepRunningBatch(at_once)) client.flood(at_once);
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(frames_per_answer));
}
BENCHMARK(port_flood)->UseRealTime();

// --- the first byte --------------------------------------------------------------------------------------------------

/// A connection that only keeps who listens to it.
class FakeConnection final : public Connection {
 public:
  explicit FakeConnection(ConnectionHandler*& handler) : handler_(handler) {}
  void start(ConnectionHandler& handler) override { handler_ = &handler; }
  void pause() override {}
  void resume() override {}
  void send(std::vector<SharedBytes>) override {}
  std::size_t unsent_bytes() const override { return 0; }
  void finish() override {}
  Address remote() const override { return "127.0.0.1:40000"; }

 private:
  ConnectionHandler*& handler_;
};

struct FakeListener final : Listener {
  Address address() const override { return "127.0.0.1:7000"; }
};

struct FakeTransport final : Transport {
  Result<std::unique_ptr<Listener>> listen(const Address&, AcceptEvents accept) override {
    events = std::move(accept);
    return std::make_unique<FakeListener>();
  }
  std::shared_ptr<void> dial(const Address&, Duration, DialDone) override { return nullptr; }
  AcceptEvents events;
};

/// From the accept to the service that claims the byte, and the connection's end, without the system's part.
void classify_connection(benchmark::State& state) {
  constexpr Tag tag = 0x80;
  test::SimScheduler scheduler;
  test::SimLoop loop(scheduler);
  FakeTransport transport;
  Mux mux(loop, transport, {});
  std::int64_t taken = 0;
  if (!mux.listen("127.0.0.1:7000") ||
      !mux.add(tag, [&taken](std::unique_ptr<Connection>, const std::string&) { ++taken; })) {
    return state.SkipWithError("no service");
  }
  ConnectionHandler* handler = nullptr;
  const std::string first = "\x80hello";
  for (auto _ : state) {
    transport.events.accepted(std::make_unique<FakeConnection>(handler));
    handler->on_data(first);
  }
  if (taken != state.iterations()) state.SkipWithError("not classified");
}
BENCHMARK(classify_connection);

}  // namespace
