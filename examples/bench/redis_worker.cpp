// A client of redis-server: a connection for each caller, one request outstanding on each, one thread.
//
//   redis_worker --port N
#include <array>
#include <cstdlib>
#include <deque>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio.hpp>

#include <fmt/format.h>

#include "workload.hpp"

namespace {

using namespace flotilla::bench;
namespace asio = boost::asio;
using asio::ip::tcp;

constexpr std::string_view cas_script =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) return 1 else return 0 end";

void append(std::string& out, std::string_view word) {
  fmt::format_to(std::back_inserter(out), "${}\r\n", word.size());
  out.append(word).append("\r\n");
}

std::string request_of(const Operation& operation) {
  std::string out;
  const auto words = [&](std::size_t count) { fmt::format_to(std::back_inserter(out), "*{}\r\n", count); };
  switch (operation.kind) {
    case Kind::put:
      words(3);
      append(out, "SET");
      append(out, operation.keys[0]);
      append(out, operation.value);
      break;
    case Kind::put_ten:
      words(1 + 2 * operation.keys.size());
      append(out, "MSET");
      for (const std::string& key : operation.keys) {
        append(out, key);
        append(out, operation.value);
      }
      break;
    case Kind::cas:
      words(6);
      append(out, "EVAL");
      append(out, cas_script);
      append(out, "1");
      append(out, operation.keys[0]);
      append(out, operation.expected);
      append(out, operation.value);
      break;
    default:
      words(2);
      append(out, "GET");
      append(out, operation.keys[0]);
  }
  return out;
}

/// Thread: that of the context.
class Connection {
 public:
  Connection(asio::io_context& context, const tcp::endpoint& server) : socket_(context) {
    socket_.connect(server);
    socket_.set_option(tcp::no_delay(true));
  }

  void ask(Operation& operation) {
    request_ = request_of(operation);
    operation_ = &operation;
    asio::async_write(socket_, asio::buffer(request_), [this](const auto& error, std::size_t) {
      if (error) return end(false);
      read();
    });
  }

 private:
  /// One answer: a line, and bytes after it where it says so.
  void read() {
    asio::async_read_until(socket_, asio::dynamic_buffer(answer_), "\r\n", [this](const auto& error, std::size_t line) {
      if (error) return end(false);
      const char type = answer_[0];
      const long bytes = type == '$' ? std::strtol(answer_.c_str() + 1, nullptr, 10) : -1;
      if (type != '$') return end(type == '+' || (type == ':' && answer_[1] == '1'));
      if (bytes < 0) return end(false);
      const std::size_t whole = line + static_cast<std::size_t>(bytes) + 2;
      if (answer_.size() >= whole) return end(true);
      asio::async_read(socket_, asio::dynamic_buffer(answer_), asio::transfer_exactly(whole - answer_.size()),
                       [this](const auto& failed, std::size_t) { end(!failed); });
    });
  }
  void end(bool ok) {
    answer_.clear();
    operation_->end(ok);
  }

  tcp::socket socket_;
  std::string request_;
  std::string answer_;
  Operation* operation_ = nullptr;
};

class RedisTarget final : public Target {
 public:
  explicit RedisTarget(unsigned short port)
      : server_(asio::ip::address_v4::loopback(), port), work_(context_.get_executor()) {
    thread_ = std::thread([this] { context_.run(); });
  }
  ~RedisTarget() override {
    asio::post(context_, [this] {
      connections_.clear();
      work_.reset();
    });
    thread_.join();
  }

  void callers(unsigned count) override {
    std::promise<void> done;
    asio::post(context_, [&] {
      while (connections_.size() < count) connections_.push_back(std::make_unique<Connection>(context_, server_));
      done.set_value();
    });
    done.get_future().get();
  }
  bool offers(Kind kind) const override { return kind != Kind::scan; }
  bool blocking(Kind) const override { return false; }

  void start(Operation& operation) override {
    asio::dispatch(context_, [this, &operation] { connections_[operation.caller]->ask(operation); });
  }

 private:
  asio::io_context context_{1};
  const tcp::endpoint server_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::thread thread_;
};

}  // namespace

int main(int count, char** words) {
  if (count != 3 || std::string_view(words[1]) != "--port") {
    fmt::print(stderr, "usage: redis_worker --port N\n");
    return 2;
  }
  RedisTarget target(static_cast<unsigned short>(std::strtoul(words[2], nullptr, 10)));
  return serve(target);
}
