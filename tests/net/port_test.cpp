// The loop thread and its sockets.
#include "net/port.hpp"

#include <atomic>
#include <csignal>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/address.hpp"
#include "net/support.hpp"

using namespace flotilla;
using namespace flotilla::net;
using namespace std::chrono_literals;
using flotilla::test::bytes_of;

namespace {

constexpr Tag tag = 0x80;

std::shared_ptr<Port> start() {
  return Port::start({}, [](const Error& error) { FAIL_CHECK(error.message()); });
}

template <class T>
T wait_for(std::promise<T>& promise) {
  auto future = promise.get_future();
  REQUIRE(future.wait_for(20s) == std::future_status::ready);
  return future.get();
}

/// Hands what arrives to functions that a test may leave out.
struct Events final : ConnectionHandler {
  void on_data(std::string_view bytes) override {
    if (data) data(bytes);
  }
  void on_end() override {
    if (end) end();
  }
  void on_closed(const Error& error) override {
    if (closed) closed(error);
  }
  void on_drained() override {
    if (drained) drained();
  }
  std::function<void(std::string_view)> data;
  std::function<void()> end;
  std::function<void(const Error&)> closed;
  std::function<void()> drained;
};

/// Two ports and a connection between them. Members of the loops: touched by tasks on them alone.
struct Pair {
  Pair() {
    std::promise<void> accepted;
    std::promise<void> dialled;
    Address address;
    right_port->run_and_wait([&] {
      REQUIRE(right_port->mux().listen("127.0.0.1:0").has_value());
      address = right_port->mux().address();
      REQUIRE(right_port->mux()
                  .add(tag,
                       [&](auto connection, std::string) {
                         right = std::move(connection);
                         right->start(right_events);
                         accepted.set_value();
                       })
                  .has_value());
    });
    std::shared_ptr<void> handle;
    left_port->run_and_wait([&] {
      handle = left_port->transport().dial(address, 5s, [&](auto connection) {
        REQUIRE(connection.has_value());
        left = std::move(*connection);
        left->send(bytes_of(std::string(1, static_cast<char>(tag))));
        dialled.set_value();
      });
    });
    wait_for(dialled);
    wait_for(accepted);
    left_port->run_and_wait([&] { handle.reset(); });
  }
  ~Pair() {
    left_port->run_and_wait([&] { left.reset(); });
    right_port->run_and_wait([&] { right.reset(); });
    left_port->stop();
    right_port->stop();
  }
  const std::shared_ptr<Port> left_port = start();
  const std::shared_ptr<Port> right_port = start();
  Events left_events;
  Events right_events;
  std::unique_ptr<Connection> left;
  std::unique_ptr<Connection> right;  // paused
};

}  // namespace

TEST_SUITE_BEGIN("net.port");

TEST_CASE("posted tasks run on the loop's thread, each thread's in the order it posted them") {
  const auto port = start();
  std::vector<std::vector<int>> seen(4);
  std::atomic<int> elsewhere{0};
  {
    std::vector<std::jthread> posters;
    for (std::size_t who = 0; who < seen.size(); ++who) {
      posters.emplace_back([&, who] {
        for (int number = 0; number < 5000; ++number) {
          port->loop().post([&, who, number] {
            if (!port->loop().is_current()) ++elsewhere;
            seen[who].push_back(number);
          });
        }
      });
    }
  }
  port->run_and_wait([] {});
  CHECK_FALSE(port->loop().is_current());
  CHECK(elsewhere == 0);
  for (const std::vector<int>& numbers : seen) {
    REQUIRE(numbers.size() == 5000);
    CHECK(std::is_sorted(numbers.begin(), numbers.end()));
  }
  port->stop();
}

TEST_CASE("a task is never run inside post, and what it posts runs after it") {
  const auto port = start();
  std::string order;
  port->run_and_wait([&] {
    port->loop().post([&] { order += 'b'; });
    order += 'a';
  });
  port->run_and_wait([&] { order += 'c'; });
  CHECK(order == "abc");
  port->stop();
}

TEST_CASE("timers ring in the order of their deadlines, never early, and not when cancelled") {
  const auto port = start();
  std::string order;
  std::promise<void> last;
  std::atomic<int> early{0};
  port->run_and_wait([&] {
    Loop& loop = port->loop();
    const auto ring = [&](Duration delay, char name) {
      return loop.after(delay, [&, name, due = loop.now() + delay] {
        if (loop.now() < due) ++early;
        order += name;
        if (name == 'd') last.set_value();
      });
    };
    ring(30ms, 'd');
    const Loop::TimerId never = ring(20ms, 'x');
    ring(20ms, 'c');
    ring(10ms, 'b');
    ring(0ms, 'a');
    CHECK(never != 0);
    loop.after(5ms, [&loop, never] { loop.cancel(never); });
    loop.cancel(never + 1000);
  });
  wait_for(last);
  port->run_and_wait([&] { CHECK(order == "abcd"); });
  CHECK(early == 0);
  port->stop();
}

TEST_CASE("an exception that leaves a task is reported, and the tasks after it run") {
  std::promise<std::string> reported;
  const auto port = Port::start({}, [&](const Error& error) { reported.set_value(error.message()); });
  std::promise<void> ran;
  port->run_and_wait([&] {
    port->loop().post([] { throw std::runtime_error("broken on purpose"); });
    port->loop().post([&] { ran.set_value(); });
  });
  CHECK(wait_for(reported) == "broken on purpose");
  wait_for(ran);
  port->stop();
}

TEST_CASE("after the end tasks are destroyed without being run, and nobody waits for them") {
  const auto port = start();
  port->stop();
  port->stop();
  const auto token = std::make_shared<int>();
  bool ran = false;
  port->loop().post([&ran, token] { ran = true; });
  CHECK(token.use_count() == 1);
  port->run_and_wait([&] { ran = true; });
  CHECK_FALSE(ran);
}

TEST_CASE("the thread has its name and takes none of the host's signals") {
  const auto port = start();
  std::string name(16, '\0');
  sigset_t blocked;
  port->run_and_wait([&] {
    pthread_getname_np(pthread_self(), name.data(), name.size());
    pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
  });
  CHECK(std::string(name.c_str()) == "flotilla-loop");
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1, SIGPIPE, SIGCHLD}) CHECK(sigismember(&blocked, signal) == 1);
  port->stop();
}

TEST_CASE("parts of any size arrive whole and in order, however slowly they are read") {
  Pair pair;
  std::string sent;
  std::string received;
  std::promise<void> drained;
  std::promise<void> ended;
  pair.right_port->run_and_wait([&] {
    pair.right_events.data = [&](std::string_view bytes) {
      received += bytes;
      if (received.size() % 3 != 0) return;
      pair.right->pause();
      pair.right_port->loop().after(1ms, [&] { pair.right->resume(); });
    };
    pair.right_events.end = [&] { ended.set_value(); };
    pair.right->resume();
  });
  pair.left_port->run_and_wait([&] {
    pair.left_events.drained = [&] { drained.set_value(); };
    pair.left->start(pair.left_events);
    for (std::size_t number = 0; number < 2000; ++number) {
      const std::size_t size = number % 50 == 7 ? 200'000 + number : number * 37 % 1500;
      std::string part(size, static_cast<char>(number));
      sent += part;
      pair.left->send(bytes_of(std::move(part)));
      if (number % 100 == 0) pair.left->send(std::vector<SharedBytes>{bytes_of("a"), SharedBytes(), bytes_of("b")});
      if (number % 100 == 0) sent += "ab";
    }
    CHECK(pair.left->unsent_bytes() == sent.size());
    pair.left->finish();
    pair.left->send(bytes_of("after the end"));
  });
  wait_for(ended);
  wait_for(drained);
  pair.right_port->run_and_wait([&] { CHECK(received == sent); });
  pair.left_port->run_and_wait([&] { CHECK(pair.left->unsent_bytes() == 0); });
}

TEST_CASE("a paused connection delivers nothing, and all of it with the end when it goes on") {
  Pair pair;
  std::string received;
  std::promise<void> ended;
  bool paused = true;
  bool told_while_paused = false;
  pair.right_port->run_and_wait([&] {
    pair.right_events.data = [&](std::string_view bytes) {
      told_while_paused = told_while_paused || paused;
      received += bytes;
    };
    pair.right_events.end = [&] { ended.set_value(); };
  });
  std::promise<void> drained;
  pair.left_port->run_and_wait([&] {
    pair.left_events.drained = [&] { drained.set_value(); };
    pair.left->start(pair.left_events);
    pair.left->send(bytes_of("hello"));
    pair.left->finish();
  });
  wait_for(drained);
  pair.right_port->run_and_wait([&] {
    CHECK(received.empty());
    paused = false;
    pair.right->resume();
    CHECK(received.empty());  // never from inside a call
  });
  wait_for(ended);
  CHECK(received == "hello");
  CHECK_FALSE(told_while_paused);
}

TEST_CASE("a connection dropped from inside its event says nothing more, and its peer learns of it") {
  Pair pair;
  int events = 0;
  std::promise<void> gone;
  pair.right_port->run_and_wait([&] {
    pair.right_events.data = [&](std::string_view) {
      ++events;
      pair.right.reset();
    };
    pair.right_events.end = [&] { ++events; };
    pair.right_events.closed = [&](const Error&) { ++events; };
    pair.right->resume();
  });
  pair.left_port->run_and_wait([&] {
    pair.left_events.end = [&] { gone.set_value(); };
    pair.left_events.closed = [&](const Error&) { gone.set_value(); };
    pair.left->start(pair.left_events);
    pair.left->send(bytes_of("x"));
  });
  wait_for(gone);
  pair.right_port->run_and_wait([&] { CHECK(events == 1); });
}

TEST_CASE("what is sent in the turn in which the connection is dropped leaves with it") {
  Pair pair;
  std::string received;
  std::promise<void> gone;
  pair.right_port->run_and_wait([&] {
    pair.right_events.data = [&](std::string_view bytes) { received += bytes; };
    pair.right_events.end = [&] { gone.set_value(); };
    pair.right->resume();
  });
  pair.left_port->run_and_wait([&] {
    pair.left->send(bytes_of("fare"));
    pair.left->send(bytes_of("well"));
    pair.left.reset();
  });
  wait_for(gone);
  pair.right_port->run_and_wait([&] { CHECK(received == "farewell"); });
}

TEST_CASE("what one turn sends leaves in one piece") {
  const auto port = start();
  Address address;
  std::promise<void> sent;
  Events events;
  std::unique_ptr<Connection> connection;
  port->run_and_wait([&] {
    REQUIRE(port->mux().listen("127.0.0.1:0").has_value());
    address = port->mux().address();
    REQUIRE(port->mux()
                .add(tag,
                     [&](auto accepted, std::string) {
                       connection = std::move(accepted);
                       connection->start(events);
                       for (int count = 0; count < 50; ++count) {
                         connection->send(bytes_of("0123456789"));
                         port->loop().post([&] { connection->send(bytes_of("abcdefghij")); });
                       }
                       port->loop().post([&] { connection->finish(); });
                     })
                .has_value());
  });
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(parse_address(address)->port);
  REQUIRE(::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0);
  const char first = static_cast<char>(tag);
  REQUIRE(::send(fd, &first, 1, MSG_NOSIGNAL) == 1);
  std::size_t received = 0;
  char buffer[4096];
  for (ssize_t count = 1; count > 0;) {
    count = ::recv(fd, buffer, sizeof buffer, 0);
    if (count > 0) received += static_cast<std::size_t>(count);
  }
  CHECK(received == 1000);
  tcp_info info{};
  socklen_t size = sizeof info;
  REQUIRE(::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0);
  // The kernel's estimate of the sender's segment size: written part by part, none would be longer than ten bytes, and
  // the estimate would stay at its least value, 536.
  CHECK(info.tcpi_rcv_mss >= 1000);
  ::close(fd);
  port->run_and_wait([&] { connection.reset(); });
  port->stop();
}

TEST_CASE("a connection that outlives its port can still be destroyed") {
  std::unique_ptr<Connection> kept;
  Events events;
  bool told = false;
  events.closed = [&](const Error&) { told = true; };
  {
    Pair pair;
    pair.right_port->run_and_wait([&] { kept = std::move(pair.right); });
  }
  kept->send(bytes_of("nobody"));
  kept->resume();
  kept.reset();
  CHECK_FALSE(told);
}

TEST_CASE("links carry large and small frames over real sockets") {
  const auto near = start();
  const auto far = start();
  std::optional<LinkServer> server;
  std::optional<Link> link;
  Address address;
  const ClusterId cluster{1, 2};
  far->run_and_wait([&] {
    REQUIRE(far->mux().listen("127.0.0.1:0").has_value());
    address = far->mux().address();
    server.emplace(far->loop(), far->mux(), LinkServer::Options{.local = {cluster, NodeId{2}, 1, {}}},
                   LinkServer::Events{.up = [](auto, const Hello&) -> Result<void> { return {}; },
                                      .frame =
                                          [&](auto id, ReceivedFrame frame) {
                                            CHECK(server->send(id, Frame{.type = frame.type, .parts = {frame.body}}));
                                          },
                                      .down = [](auto, const Error&) {}});
  });
  const std::vector<std::size_t> sizes = {0, 1, 20'000'000, 64, 4096, 300'000};
  std::vector<std::size_t> back;
  bool same = true;
  std::promise<void> done;
  near->run_and_wait([&] {
    link.emplace(near->loop(), near->transport(),
                 Link::Options{.address = address, .local = {cluster, NodeId{1}, 1, {}}, .expected = NodeId{2}},
                 Link::Events{.up =
                                  [&](const Hello&) {
                                    for (const std::size_t size : sizes) {
                                      CHECK(link->send(test::frame_of(7, std::string(size, 'q'))));
                                    }
                                  },
                              .frame =
                                  [&](ReceivedFrame frame) {
                                    same = same && frame.body.view() == std::string(frame.body.size(), 'q');
                                    back.push_back(frame.body.size());
                                    if (back.size() == sizes.size()) done.set_value();
                                  },
                              .down = [](const Error& error) { FAIL_CHECK(error.message()); }});
  });
  wait_for(done);
  near->run_and_wait([&] { link.reset(); });
  far->run_and_wait([&] { server.reset(); });
  CHECK(back == sizes);
  CHECK(same);
  near->stop();
  far->stop();
}

TEST_SUITE_END();
