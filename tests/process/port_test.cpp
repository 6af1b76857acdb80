// What strangers can do on the port: nothing to anybody else.
#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <flotilla/flotilla.hpp>
#include <flotilla/standard.hpp>

#include "support/temp_dir.hpp"

using namespace flotilla;
using namespace std::chrono_literals;
using flotilla::test::TempDir;

namespace {

constexpr Tag echo_tag = 0x90;

struct Host {
  Host() : db(DB::open(options(), standard_commands()).value()) {}

  Options options() const {
    Options options;
    options.data_dir = directory / "data";
    options.listen = "127.0.0.1:0";
    options.found = true;
    options.map_size = 64u << 20;
    options.segment_bytes = 1u << 20;
    options.classify_timeout = 200ms;
    options.log_sink = [](LogLevel, std::string_view) {};
    return options;
  }
  bool works() { return db.command("put", {"t", "k", "v"}).get().has_value(); }

  TempDir directory;
  DB db;
};

/// A client without manners.
class RawClient {
 public:
  explicit RawClient(const Address& address) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    REQUIRE(::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
    const timeval patience{10, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~RawClient() { ::close(fd_); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void send(std::string_view bytes) { static_cast<void>(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL)); }
  /// Whether the other side ends the connection within the patience, whatever it sends before.
  bool is_closed_by_peer() {
    char bytes[4096];
    ssize_t got = 0;
    while ((got = ::recv(fd_, bytes, sizeof bytes, 0)) > 0) {
    }
    return got == 0 || errno == ECONNRESET;
  }
  /// Ends it with a reset instead of an end of stream.
  void reset_on_close() {
    const linger at_once{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  }

 private:
  int fd_;
};

/// Reads and writes back until the end, by completions.
void echo(std::shared_ptr<Stream> stream) {
  stream->async_read(65536, [stream](Result<Bytes> bytes) {
    if (!bytes || bytes->empty()) return stream->close();
    stream->async_write(std::move(*bytes), [stream](Result<void> written) {
      if (written) echo(stream);
    });
  });
}

std::atomic<int> pipe_signals = 0;

}  // namespace

TEST_SUITE("process.port") {
  TEST_CASE("an application's own service shares the port with the database") {
    Host member;
    REQUIRE(member.db.service(echo_tag, [](Stream s) { echo(std::make_shared<Stream>(std::move(s))); }).has_value());
    StreamMux dialer = StreamMux::open({}).value();
    const std::string message(200'000, 'm');
    Stream one = dialer.dial(member.db.status().listen, echo_tag).value();
    Stream other = dialer.dial(member.db.status().listen, echo_tag).value();
    std::thread writer([&] { CHECK(one.write(message).has_value()); });
    CHECK(other.write("short").has_value());
    CHECK(other.read_exactly(5).value() == "short");
    CHECK(one.read_exactly(message.size()).value() == message);
    writer.join();
    CHECK(member.works());
  }

  TEST_CASE("tags of the database, of TLS and of printable text cannot be taken, nor one twice") {
    Host member;
    const auto nothing = [](Stream) {};
    for (const int tag : {0x00, 0x01, 0x08, 0x09, 0x0a, 0x16, 0x20, 0x47, 0x7f}) {
      CAPTURE(tag);
      const auto refused = member.db.service(static_cast<Tag>(tag), nothing);
      REQUIRE_FALSE(refused.has_value());
      CHECK(refused.error() == Errc::invalid_argument);
    }
    CHECK(member.db.service(echo_tag, nothing).has_value());
    CHECK(member.db.service(echo_tag, nothing).error() == Errc::invalid_argument);
  }

  TEST_CASE("an unknown first byte ends that connection, is counted, and disturbs nobody") {
    Host member;
    const auto before = member.db.streams().stats().unknown_tag;
    for (const char byte : {'\xff', '\x16', 'G', '\x81', '\n'}) {
      RawClient client(member.db.status().listen);
      client.send({&byte, 1});
      CHECK(client.is_closed_by_peer());
    }
    CHECK(member.db.streams().stats().unknown_tag == before + 5);
    CHECK(member.works());
  }

  TEST_CASE("silent clients are closed in time, and meanwhile others are served") {
    Host member;
    REQUIRE(member.db.service(echo_tag, [](Stream s) { echo(std::make_shared<Stream>(std::move(s))); }).has_value());
    std::vector<std::unique_ptr<RawClient>> silent;
    for (int number = 0; number < 50; ++number) {
      silent.push_back(std::make_unique<RawClient>(member.db.status().listen));
    }
    StreamMux dialer = StreamMux::open({}).value();
    Stream stream = dialer.dial(member.db.status().listen, echo_tag).value();
    CHECK(stream.write("hello").has_value());
    CHECK(stream.read_exactly(5).value() == "hello");
    CHECK(member.works());
    for (const auto& client : silent) CHECK(client->is_closed_by_peer());
    CHECK(member.db.streams().stats().classify_timeout >= 50);
  }

  TEST_CASE("frames that announce gigabytes, garbage and half frames end their connection and nothing else") {
    Host member;
    for (int tag = 0x00; tag <= 0x08; ++tag) {
      for (const std::string& bytes :
           {std::string(8, '\xff'), std::string(4096, '\xff'), std::string("\xff\xff\xff\xff\0\0\0\0", 8),
            std::string(4096, '\0'), std::string("GET / HTTP/1.1\r\n\r\n")}) {
        CAPTURE(tag);
        RawClient client(member.db.status().listen);
        client.send(std::string(1, static_cast<char>(tag)) + bytes);
        CHECK(client.is_closed_by_peer());
      }
    }
    CHECK(member.works());
    CHECK_FALSE(member.db.status().fault.has_value());
  }

  TEST_CASE("a peer that breaks off raises no SIGPIPE in the host, and its handler stays the host's own") {
    struct sigaction mine {};
    mine.sa_handler = [](int) { ++pipe_signals; };
    struct sigaction before {};
    REQUIRE(::sigaction(SIGPIPE, &mine, &before) == 0);
    {
      Host member;
      std::atomic<int> ended = 0;
      // Writes until the peer is gone, and then once more.
      std::function<void(std::shared_ptr<Stream>)> flood = [&](std::shared_ptr<Stream> stream) {
        stream->async_write(Bytes(65536, 'x'), [&, stream](Result<void> written) {
          if (written) return flood(stream);
          stream->async_write("again", [&, stream](Result<void>) { ++ended; });
        });
      };
      REQUIRE(
          member.db.service(echo_tag, [&](Stream s) { flood(std::make_shared<Stream>(std::move(s))); }).has_value());
      for (int number = 0; number < 10; ++number) {
        RawClient client(member.db.status().listen);
        if (number % 2 == 0) client.reset_on_close();
        client.send({reinterpret_cast<const char*>(&echo_tag), 1});
      }
      const auto end = std::chrono::steady_clock::now() + 10s;
      while (ended < 10 && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(1ms);
      CHECK(ended == 10);
      CHECK(member.works());
      struct sigaction now {};
      REQUIRE(::sigaction(SIGPIPE, nullptr, &now) == 0);
      CHECK((now.sa_handler == mine.sa_handler));
    }
    CHECK(pipe_signals == 0);
    REQUIRE(::sigaction(SIGPIPE, &before, nullptr) == 0);
  }
}
