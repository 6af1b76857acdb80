// The real shell: sockets on loopback, threads, and deadlines that only have to pass.
#include "flotilla/stream.hpp"

#include <atomic>
#include <csignal>
#include <future>
#include <optional>
#include <thread>

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/address.hpp"

using namespace flotilla;
using namespace std::chrono_literals;

namespace {

constexpr Tag echo_tag = 0x80;
constexpr Tag other_tag = 0x81;
constexpr auto patience = 20s;  // only a hang makes a test wait so long

StreamMux open(StreamMuxOptions options = {}) {
  if (options.listen.empty()) options.listen = "127.0.0.1:0";
  options.log_sink = [](LogLevel, std::string_view) {};
  auto mux = StreamMux::open(std::move(options));
  REQUIRE(mux.has_value());
  return std::move(*mux);
}

void echo(std::shared_ptr<Stream> stream) {
  Stream& it = *stream;
  it.async_read(65536, [stream](Result<Bytes> bytes) {
    if (!bytes || bytes->empty()) return stream->finish_writing();
    stream->async_write(std::move(*bytes), [stream](Result<void> written) {
      if (written) echo(stream);
    });
  });
}

void serve_echo(StreamMux& mux, Tag tag = echo_tag) {
  REQUIRE(mux.service(tag, [](Stream stream) { echo(std::make_shared<Stream>(std::move(stream))); }).has_value());
}

std::string read_to_end(Stream& stream) {
  std::string all;
  for (;;) {
    auto bytes = stream.read(65536, patience);
    REQUIRE(bytes.has_value());
    if (bytes->empty()) return all;
    all += *bytes;
  }
}

/// A socket without our library behind it.
class RawClient {
 public:
  explicit RawClient(const Address& address) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(net::parse_address(address)->port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0);
    const timeval timeout{.tv_sec = 20, .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  }
  RawClient(const RawClient&) = delete;
  ~RawClient() { close(); }
  void send(std::string_view bytes) { REQUIRE(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0); }
  /// What the server sends until it closes; "!" in front if nothing came for the socket's own patience.
  std::string rest() {
    std::string all;
    char buffer[4096];
    for (;;) {
      const ssize_t count = ::recv(fd_, buffer, sizeof buffer, 0);
      if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return "!" + all;
      if (count <= 0) return all;
      all.append(buffer, static_cast<std::size_t>(count));
    }
  }
  void reset() {
    const linger hard{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close();
  }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

/// While it lives, this process can open `spare` descriptors and no more.
class FewDescriptors {
 public:
  explicit FewDescriptors(std::size_t spare) {
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before_) == 0);
    rlimit tight = before_;
    tight.rlim_cur = 256;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &tight) == 0);
    for (int fd = ::dup(0); fd >= 0; fd = ::dup(0)) fillers_.push_back(fd);
    REQUIRE(fillers_.size() > spare);
    for (; spare > 0; --spare) {
      ::close(fillers_.back());
      fillers_.pop_back();
    }
  }
  FewDescriptors(const FewDescriptors&) = delete;
  ~FewDescriptors() {
    for (const int fd : fillers_) ::close(fd);
    ::setrlimit(RLIMIT_NOFILE, &before_);
  }

 private:
  rlimit before_{};
  std::vector<int> fillers_;
};

template <class Predicate>
bool eventually(Predicate&& holds) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace

TEST_SUITE_BEGIN("net.stream");

TEST_CASE("an echo service under an application's tag answers, beside others and alone") {
  for (const bool alone : {true, false}) {
    CAPTURE(alone);
    StreamMux server = open();
    serve_echo(server);
    if (!alone) {
      serve_echo(server, other_tag);
      REQUIRE(server.peeked_service("GP", [](Stream) {}).has_value());
    }
    StreamMux client = StreamMux::open({}).value();
    auto stream = client.dial(server.address(), echo_tag);
    REQUIRE(stream.has_value());
    CHECK(stream->remote() == server.address());
    for (const std::size_t size : {1, 100, 70'000, 3'000'000}) {
      const std::string sent(size, static_cast<char>('a' + size % 26));
      std::thread writer([&] { CHECK(stream->write(sent, patience).has_value()); });
      const auto back = stream->read_exactly(size, patience);
      writer.join();
      REQUIRE(back.has_value());
      CHECK(*back == sent);
    }
    CHECK(client.address().empty());
  }
}

TEST_CASE("a peeked service sees the first byte, and many protocols share the port") {
  StreamMux server = open();
  serve_echo(server);
  REQUIRE(server
              .peeked_service("GHP*",
                              [](Stream stream) {
                                auto shared = std::make_shared<Stream>(std::move(stream));
                                shared->async_read(100, [shared](Result<Bytes> bytes) {
                                  if (!bytes) return;
                                  shared->async_write("saw " + *bytes, [shared](Result<void>) { shared->close(); });
                                });
                              })
              .has_value());
  RawClient http(server.address());
  http.send("GET /");
  CHECK(http.rest() == "saw GET /");
  RawClient redis(server.address());
  redis.send("*1");
  CHECK(redis.rest() == "saw *1");
  RawClient tagged(server.address());
  tagged.send("\x80ping");
  auto stream = server.dial(server.address(), echo_tag);
  REQUIRE(stream.has_value());
  REQUIRE(stream->write("pong").has_value());
  CHECK(stream->read_exactly(4, patience).value() == "pong");
}

TEST_CASE("unknown bytes and silent clients are closed and counted while services go on") {
  StreamMux server = open({.classify_timeout = 100ms});
  serve_echo(server);
  RawClient silent(server.address());
  RawClient unknown(server.address());
  unknown.send("\x99 nobody");
  CHECK(unknown.rest().empty());
  auto stream = server.dial(server.address(), echo_tag);
  REQUIRE(stream.has_value());
  REQUIRE(stream->write("x").has_value());
  CHECK(stream->read(1, patience).value() == "x");
  CHECK(silent.rest().empty());
  const StreamMuxStats stats = server.stats();
  CHECK(stats.unknown_tag == 1);
  CHECK(stats.classify_timeout == 1);
  CHECK(stats.classified == 1);
  CHECK(stats.accepted == 3);
}

TEST_CASE("the full backlog of one service closes its newest and does not affect another") {
  StreamMux server = open();
  serve_echo(server);
  StreamListener listener = server.listen(other_tag, 2).value();
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int count = 0; count < 4; ++count) {
    clients.push_back(std::make_unique<RawClient>(server.address()));
    clients.back()->send("\x81" + std::to_string(count));
    REQUIRE(eventually([&] { return server.stats().classified == static_cast<std::uint64_t>(count + 1); }));
  }
  CHECK(clients[2]->rest().empty());
  CHECK(clients[3]->rest().empty());
  CHECK(server.stats().backlog_full == 2);
  auto stream = server.dial(server.address(), echo_tag);
  REQUIRE(stream.has_value());
  REQUIRE(stream->write("x").has_value());
  CHECK(stream->read(1, patience).value() == "x");
  CHECK(listener.accept(patience).value().read(10, patience).value() == "0");
  CHECK(listener.accept(patience).value().read(10, patience).value() == "1");
  CHECK(listener.accept(0ms).error() == Errc::timeout);
}

TEST_CASE("the peer's end of stream is an empty read, and writing goes on") {
  StreamMux server = open();
  StreamListener listener = server.listen(echo_tag).value();
  Stream near = server.dial(server.address(), echo_tag).value();
  Stream far = listener.accept(patience).value();
  REQUIRE(near.write("question").has_value());
  near.finish_writing();
  CHECK(read_to_end(far) == "question");
  CHECK(far.read(1, patience).value().empty());
  CHECK(far.read_exactly(1, patience).error() == Errc::closed);
  REQUIRE(far.write("answer").has_value());
  far.finish_writing();
  CHECK(read_to_end(near) == "answer");
}

TEST_CASE("a slow reader makes the writer wait, and nothing is lost") {
  StreamMux server = open();
  StreamListener listener = server.listen(echo_tag).value();
  Stream near = server.dial(server.address(), echo_tag).value();
  Stream far = listener.accept(patience).value();
  const std::string block(32u << 20, 'b');
  // More than the buffers of the kernel and the read-ahead together: it cannot end before somebody reads.
  CHECK(near.write(block, 50ms).error() == Errc::timeout);
  CHECK(near.write("later", 0ms).error() == Errc::timeout);
  std::size_t received = 0;
  while (received < block.size()) received += far.read(1u << 20, patience).value().size();
  REQUIRE(near.write("end", patience).has_value());
  CHECK(far.read_exactly(3, patience).value() == "end");
}

TEST_CASE("a read that times out loses nothing") {
  StreamMux server = open();
  StreamListener listener = server.listen(echo_tag).value();
  Stream near = server.dial(server.address(), echo_tag).value();
  Stream far = listener.accept(patience).value();
  CHECK(far.read(10, 1ms).error() == Errc::timeout);
  REQUIRE(near.write("abc").has_value());
  CHECK(far.read_exactly(5, 20ms).error() == Errc::timeout);
  REQUIRE(near.write("de").has_value());
  CHECK(far.read_exactly(5, patience).value() == "abcde");
}

TEST_CASE("dialling nobody fails with the reason, and a malformed address at once") {
  StreamMux client = StreamMux::open({}).value();
  Address gone;
  {
    StreamMux server = open();
    gone = server.address();
  }
  const auto refused = client.dial(gone, echo_tag);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error() == Errc::io_error);
  CHECK(refused.error().message().find("refused") != std::string::npos);
  CHECK(client.dial("nonsense", echo_tag).error() == Errc::invalid_argument);
  CHECK(client.dial("host.invalid:1", echo_tag, patience).error() == Errc::io_error);
}

TEST_CASE("dialling a host that does not answer ends at the deadline") {
  // A listening socket whose queue is full drops further attempts: the handshake never ends.
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0);
  REQUIRE(::listen(fd, 0) == 0);
  socklen_t size = sizeof at;
  REQUIRE(::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) == 0);
  const Address address = net::format_address("127.0.0.1", ntohs(at.sin_port));
  StreamMux client = StreamMux::open({}).value();
  std::vector<Stream> fill;
  std::optional<Error> ended;
  for (int count = 0; count < 50 && !ended; ++count) {
    auto stream = client.dial(address, echo_tag, 50ms);
    if (stream) {
      fill.push_back(std::move(*stream));
    } else {
      ended = stream.error();
    }
  }
  REQUIRE(ended);
  CHECK(*ended == Errc::timeout);
  ::close(fd);
}

TEST_CASE("an address in use, malformed or foreign is refused") {
  StreamMux server = open();
  CHECK(StreamMux::open({.listen = server.address()}).error() == Errc::address_in_use);
  CHECK(StreamMux::open({.listen = "127.0.0.1"}).error() == Errc::invalid_argument);
  CHECK(StreamMux::open({.listen = "192.0.2.1:0"}).error() == Errc::address_in_use);
  const Address address = server.address();
  server.close();
  CHECK(StreamMux::open({.listen = address}).has_value());
}

TEST_CASE("a name is dialled like an address") {
  StreamMux server = open({.listen = "localhost:0"});
  serve_echo(server);
  const auto port = net::parse_address(server.address())->port;
  auto stream = server.dial(net::format_address("localhost", port), echo_tag, patience);
  REQUIRE(stream.has_value());
  REQUIRE(stream->write("x").has_value());
  CHECK(stream->read(1, patience).value() == "x");
}

TEST_CASE("closing ends whoever is blocked") {
  StreamMux server = open();
  StreamListener listener = server.listen(echo_tag).value();
  StreamListener other = server.listen(other_tag).value();
  Stream near = server.dial(server.address(), echo_tag).value();
  Stream far = listener.accept(patience).value();
  const Stream silent = server.dial(server.address(), echo_tag).value();
  Stream idle = listener.accept(patience).value();
  auto reading = std::async(std::launch::async, [&] { return idle.read(1, patience).error(); });
  auto writing = std::async(std::launch::async, [&] {
    const std::string block(64u << 20, 'b');
    return near.write(block, patience).error();
  });
  auto accepting = std::async(std::launch::async, [&] { return listener.accept(patience).error(); });
  auto accepting_other = std::async(std::launch::async, [&] { return other.accept(patience).error(); });
  std::promise<Error> async_read;
  near.async_read(1, [&](Result<Bytes> bytes) { async_read.set_value(bytes.error()); });
  SUBCASE("each by itself") {
    near.close();
    far.close();
    idle.close();
    listener.close();
    other.close();
  }
  SUBCASE("all by the mux") {
    server.close();
  }
  CHECK(accepting.get() == Errc::closed);
  CHECK(accepting_other.get() == Errc::closed);
  CHECK(writing.get() == Errc::closed);
  CHECK(async_read.get_future().get() == Errc::closed);
  CHECK(reading.get() == Errc::closed);
  near.close();
  server.close();
  CHECK(near.write("x").error() == Errc::closed);
  CHECK(server.dial("127.0.0.1:1", echo_tag).error() == Errc::closed);
  CHECK(server.listen(0x90).error() == Errc::closed);
  CHECK(server.service(0x90, [](Stream) {}).error() == Errc::closed);
}

TEST_CASE("a dial under way ends when the mux is closed") {
  StreamMux client = StreamMux::open({}).value();
  std::promise<Error> ended;
  client.async_dial("192.0.2.1:9", echo_tag, 20s, [&](Result<Stream> stream) { ended.set_value(stream.error()); });
  client.close();
  const Error error = ended.get_future().get();
  CHECK((error == Errc::closed || error == Errc::io_error));  // or there is no route at all
}

TEST_CASE("a blocking call on the mux's thread is refused instead of waiting for itself") {
  StreamMux server = open();
  StreamListener listener = server.listen(other_tag).value();
  std::promise<std::vector<Error>> seen;
  REQUIRE(server
              .service(echo_tag,
                       [&](Stream stream) {
                         seen.set_value({stream.read(1).error(), stream.read_exactly(1).error(),
                                         stream.write("x").error(), server.dial(server.address(), other_tag).error(),
                                         listener.accept().error()});
                       })
              .has_value());
  auto stream = server.dial(server.address(), echo_tag);
  REQUIRE(stream.has_value());
  for (const Error& error : seen.get_future().get()) CHECK(error == Errc::would_deadlock);
}

TEST_CASE("one read and one write may be outstanding, another is refused") {
  StreamMux server = open();
  StreamListener listener = server.listen(echo_tag).value();
  Stream near = server.dial(server.address(), echo_tag).value();
  Stream far = listener.accept(patience).value();
  std::promise<Bytes> first;
  near.async_read(10, [&](Result<Bytes> bytes) { first.set_value(bytes.value()); });
  std::promise<Error> second;
  near.async_read(10, [&](Result<Bytes> bytes) { second.set_value(bytes.error()); });
  CHECK(second.get_future().get() == Errc::invalid_argument);
  CHECK(near.read(1).error() == Errc::invalid_argument);
  REQUIRE(far.write("x").has_value());
  CHECK(first.get_future().get() == "x");
  std::promise<Result<void>> long_write;
  near.async_write(Bytes(64u << 20, 'b'), [&](Result<void> result) { long_write.set_value(result); });
  std::promise<Error> refused;
  near.async_write("y", [&](Result<void> result) { refused.set_value(result.error()); });
  CHECK(refused.get_future().get() == Errc::overloaded);
  far.close();
  CHECK_FALSE(long_write.get_future().get().has_value());
}

TEST_CASE("a peer that resets while we write is an error, not a signal") {
  // The default action of SIGPIPE would end this process.
  struct sigaction before {};
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  sigaction(SIGPIPE, &standard, &before);
  StreamMux server = open();
  StreamListener listener = server.listen(echo_tag).value();
  RawClient client(server.address());
  client.send("\x80");
  Stream stream = listener.accept(patience).value();
  client.reset();
  std::optional<Error> error;
  for (int count = 0; count < 1000 && !error; ++count) {
    const auto written = stream.write("into the void", patience);
    if (!written) error = written.error();
  }
  REQUIRE(error);
  CHECK(*error == Errc::io_error);
  // Written to by a thread whose connection the kernel already knows to be broken.
  CHECK(stream.write("again", patience).error() == Errc::io_error);
  sigaction(SIGPIPE, &before, nullptr);
}

TEST_CASE("no descriptor of ours is inherited by a program the host starts") {
  StreamMux server = open();
  serve_echo(server);
  auto stream = server.dial(server.address(), echo_tag);
  REQUIRE(stream.has_value());
  REQUIRE(stream->write("x").has_value());
  REQUIRE(stream->read(1, patience).has_value());
  int sockets = 0;
  for (int fd = 3; fd < 256; ++fd) {
    int type = 0;
    socklen_t size = sizeof type;
    if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0) continue;
    ++sockets;
    CAPTURE(fd);
    CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
  }
  CHECK(sockets >= 3);
}

TEST_CASE("running out of descriptors does not end listening") {
  StreamMux server = open();
  serve_echo(server);
  RawClient first(server.address());
  REQUIRE(eventually([&] { return server.stats().accepted == 1; }));
  std::optional<FewDescriptors> few(std::in_place, 1);  // for the client's end, none for the server's
  RawClient starved(server.address());
  starved.send("\x80hello");
  CHECK(eventually([&] { return server.stats().accept_errors > 0; }));
  few.reset();
  CHECK(eventually([&] { return server.stats().classified == 1; }));
  CHECK(server.stats().accept_errors < 100);  // it waited between the attempts
}

TEST_CASE("only free application tags can be registered, and a removed one is unknown") {
  StreamMux server = open();
  CHECK(server.service(0x09, [](Stream) {}).error() == Errc::invalid_argument);
  CHECK(server.service(0x16, [](Stream) {}).error() == Errc::invalid_argument);
  CHECK(server.service('G', [](Stream) {}).error() == Errc::invalid_argument);
  CHECK(server.peeked_service("\x80", [](Stream) {}).error() == Errc::invalid_argument);
  CHECK(server.service(echo_tag, {}).error() == Errc::invalid_argument);
  serve_echo(server);
  CHECK(server.service(echo_tag, [](Stream) {}).error() == Errc::invalid_argument);
  Stream kept = server.dial(server.address(), echo_tag).value();
  REQUIRE(kept.write("x").has_value());
  CHECK(kept.read(1, patience).value() == "x");
  server.remove_service(echo_tag);
  Stream late = server.dial(server.address(), echo_tag).value();
  CHECK(late.read(1, patience).value_or("").empty());
  REQUIRE(kept.write("y").has_value());
  CHECK(kept.read(1, patience).value() == "y");
}

TEST_CASE("a mux may be closed from its own handler and while streams live on") {
  auto server = std::make_unique<StreamMux>(open());
  std::promise<void> closed;
  REQUIRE(server
              ->service(echo_tag,
                        [&](Stream) {
                          server->close();
                          closed.set_value();
                        })
              .has_value());
  StreamMux client = StreamMux::open({}).value();
  Stream stream = client.dial(server->address(), echo_tag).value();
  closed.get_future().wait();
  server.reset();
  CHECK(stream.read(1, patience).value_or("").empty());
}

TEST_SUITE_END();
