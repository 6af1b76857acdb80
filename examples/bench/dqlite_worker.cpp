// dqlite: a server with one node of it, or a client of such.
//
//   dqlite_worker --node ID --address HOST:PORT --data DIR       runs until standard input ends
//   dqlite_worker --client HOST:PORT [--add ID=HOST:PORT]...     --client: the node with ID 1
//
// The client speaks dqlite's wire protocol: a connection and a thread for each caller, prepared statements. SQLite has
// one writer: a second one is told SQLITE_BUSY while a commit replicates. So callers take turns to write, which with 64
// of them is ten times as fast as trying again.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

extern "C" {
#include <dqlite.h>
}

#include <fmt/format.h>

#include "workload.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flotilla::bench;

/// A body: words of 8 bytes, little-endian.
class Body {
 public:
  Body& u64(std::uint64_t value) { return raw(&value, sizeof value); }
  Body& u32(std::uint32_t value) { return raw(&value, sizeof value); }
  Body& text(std::string_view value) {
    bytes_.append(value).push_back('\0');
    return pad();
  }
  Body& blobs(const std::vector<std::string_view>& values) {
    bytes_.push_back(static_cast<char>(values.size()));
    bytes_.append(values.size(), blob_type);
    pad();
    for (const std::string_view value : values) {
      u64(value.size());
      bytes_.append(value);
      pad();
    }
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  static constexpr char blob_type = 4;
  Body& raw(const void* data, std::size_t size) {
    bytes_.append(static_cast<const char*>(data), size);
    return *this;
  }
  Body& pad() {
    bytes_.resize((bytes_.size() + 7) / 8 * 8);
    return *this;
  }
  std::string bytes_;
};

enum class Request : std::uint8_t {
  leader = 0,
  client = 1,
  open = 3,
  prepare = 4,
  exec = 5,
  query = 6,
  exec_sql = 8,
  add = 12,
  assign = 13
};
enum class Response : std::uint8_t { failure = 0, rows = 7 };

struct Answer {
  Response type{};
  std::string body;

  std::uint64_t word(std::size_t position) const {
    std::uint64_t value = 0;
    if (body.size() >= 8 * (position + 1)) std::memcpy(&value, body.data() + 8 * position, sizeof value);
    return value;
  }
  bool failed() const { return type == Response::failure; }
  bool busy() const { return failed() && (word(0) & 0xff) == 5; }
  std::string text(std::size_t position) const { return body.c_str() + 8 * position; }
};

class Connection {
 public:
  explicit Connection(const std::string& address) {
    const std::size_t colon = address.rfind(':');
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(std::strtoul(address.c_str() + colon + 1, nullptr, 10)));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (::connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
      ::close(socket_);
      throw std::runtime_error(address + " does not answer");
    }
    write(Body().u64(1).bytes());
    ask(Request::client, Body().u64(1));
  }
  ~Connection() { ::close(socket_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  Answer ask(Request type, const Body& body) {
    const auto words = static_cast<std::uint32_t>(body.bytes().size() / 8);
    std::string message(8, '\0');
    std::memcpy(message.data(), &words, sizeof words);
    message[4] = static_cast<char>(type);
    write(message + body.bytes());
    Answer answer = read();
    constexpr std::uint64_t another_part = 0xeeeeeeeeeeeeeeeeu;
    for (Answer part = answer; part.type == Response::rows && part.word(part.body.size() / 8 - 1) == another_part;) {
      // The server does not send the next part before this one is acknowledged, which by itself takes 40 ms.
      const int on = 1;
      ::setsockopt(socket_, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
      part = read();
    }
    return answer;
  }

 private:
  void write(const std::string& bytes) {
    for (std::size_t sent = 0; sent < bytes.size();) {
      const ssize_t count = ::send(socket_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) throw std::runtime_error("the connection was lost");
      sent += static_cast<std::size_t>(count);
    }
  }
  void read(char* to, std::size_t size) {
    for (std::size_t got = 0; got < size;) {
      const ssize_t count = ::recv(socket_, to + got, size - got, 0);
      if (count <= 0) throw std::runtime_error("the connection was lost");
      got += static_cast<std::size_t>(count);
    }
  }
  Answer read() {
    char header[8];
    read(header, sizeof header);
    std::uint32_t words = 0;
    std::memcpy(&words, header, sizeof words);
    Answer answer{static_cast<Response>(header[4]), std::string(std::size_t{words} * 8, '\0')};
    read(answer.body.data(), answer.body.size());
    return answer;
  }

  int socket_ = -1;
};

/// A connection with the statements.
class Session {
 public:
  explicit Session(const std::string& address) : connection_(address) {
    db_ =
        static_cast<std::uint32_t>(check(connection_.ask(Request::open, Body().text("bench").u64(0).text(""))).word(0));
    run("CREATE TABLE IF NOT EXISTS bench (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID");
    put_ = prepare("INSERT OR REPLACE INTO bench VALUES (?, ?)");
    std::string ten = "INSERT OR REPLACE INTO bench VALUES (?, ?)";
    for (std::size_t i = 1; i < keys_at_once; ++i) ten += ", (?, ?)";
    put_ten_ = prepare(ten);
    cas_ = prepare("UPDATE bench SET value = ? WHERE key = ? AND value = ?");
    get_ = prepare("SELECT value FROM bench WHERE key = ?");
    scan_ = prepare(fmt::format("SELECT key, value FROM bench WHERE key >= ? ORDER BY key LIMIT {}", scan_length));
  }

  /// Rows from `first` on, all with the same value.
  void fill(std::uint64_t first, std::uint64_t count, std::string_view value) {
    run(fmt::format(
        "INSERT OR REPLACE INTO bench WITH RECURSIVE n(i) AS (SELECT {} UNION ALL SELECT i + 1 FROM n WHERE "
        "i < {}) SELECT CAST(printf('user%012d', i) AS BLOB), CAST('{}' AS BLOB) FROM n",
        first, first + count - 1, value));
  }

  bool run(const Operation& operation) {
    const std::string& key = operation.keys[0];
    switch (operation.kind) {
      case Kind::put: return write(put_, {key, operation.value}).has_value();
      case Kind::put_ten: {
        std::vector<std::string_view> values;
        for (const std::string& each : operation.keys) {
          values.emplace_back(each);
          values.emplace_back(operation.value);
        }
        return write(put_ten_, values).has_value();
      }
      case Kind::cas: return write(cas_, {operation.value, key, operation.expected}) == 1;
      case Kind::get:
      case Kind::get_local: return found(get_, key);
      case Kind::scan: return found(scan_, key);
    }
    return false;
  }

 private:
  static Answer check(Answer answer) {
    if (answer.failed()) throw std::runtime_error(answer.text(1));
    return answer;
  }
  static void pause() { std::this_thread::sleep_for(100us); }

  void run(const std::string& sql) {
    Answer answer;
    do {
      answer = connection_.ask(Request::exec_sql, Body().u64(db_).text(sql).u64(0));
      if (answer.busy()) pause();
    } while (answer.busy());
    check(std::move(answer));
  }
  std::uint32_t prepare(const std::string& sql) {
    return static_cast<std::uint32_t>(check(connection_.ask(Request::prepare, Body().u64(db_).text(sql))).word(0) >>
                                      32);
  }
  /// How many rows it changed.
  std::optional<std::uint64_t> write(std::uint32_t statement, const std::vector<std::string_view>& values) {
    static std::mutex turn;
    const std::lock_guard lock(turn);
    while (true) {
      const Answer answer = connection_.ask(Request::exec, Body().u32(db_).u32(statement).blobs(values));
      if (!answer.failed()) return answer.word(1);
      if (!answer.busy()) return std::nullopt;
      pause();
    }
  }
  bool found(std::uint32_t statement, std::string_view key) {
    const Answer answer = connection_.ask(Request::query, Body().u32(db_).u32(statement).blobs({key}));
    if (answer.type != Response::rows) return false;
    std::size_t at = 1;  // after the number of columns come their names
    for (std::uint64_t i = 0; i < answer.word(0); ++i) at += (answer.text(at).size() + 8) / 8;
    constexpr std::uint64_t end = 0xffffffffffffffffu;
    return answer.word(at) != end;
  }

  Connection connection_;
  std::uint32_t db_ = 0;
  std::uint32_t put_ = 0, put_ten_ = 0, cas_ = 0, get_ = 0, scan_ = 0;
};

class DqliteTarget final : public Target {
 public:
  explicit DqliteTarget(std::string address) : address_(std::move(address)) {}

  void callers(unsigned count) override {
    while (sessions_.size() < count) sessions_.push_back(std::make_unique<Session>(address_));
  }
  bool fill(std::uint64_t keys, std::string_view value) override {
    constexpr std::uint64_t at_once = 10'000;
    callers(1);
    for (std::uint64_t key = 0; key < keys; key += at_once) {
      sessions_[0]->fill(key, std::min(at_once, keys - key), value);
    }
    return true;
  }
  bool offers(Kind) const override { return true; }
  bool blocking(Kind) const override { return true; }
  void start(Operation& operation) override { operation.end(sessions_[operation.caller]->run(operation)); }

 private:
  const std::string address_;
  std::vector<std::unique_ptr<Session>> sessions_;
};

int run_node(dqlite_node_id id, const std::string& address, const std::string& directory) {
  std::filesystem::create_directories(directory);
  dqlite_node* node = nullptr;
  if (dqlite_node_create(id, address.c_str(), directory.c_str(), &node) != 0 ||
      dqlite_node_set_bind_address(node, address.c_str()) != 0 || dqlite_node_start(node) != 0) {
    fmt::print(stderr, "dqlite_worker: {}\n", node == nullptr ? "no node" : dqlite_node_errmsg(node));
    return 1;
  }
  fmt::print("ready\n");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) continue;
  dqlite_node_stop(node);
  dqlite_node_destroy(node);
  return 0;
}

/// Makes the others voters.
void add(Connection& leader, const std::string& what) {
  const std::uint64_t id = std::strtoull(what.c_str(), nullptr, 10);
  const Answer added = leader.ask(Request::add, Body().u64(id).text(what.substr(what.find('=') + 1)));
  if (added.failed()) throw std::runtime_error(added.text(1));
  for (int attempt = 0;; ++attempt) {
    const Answer assigned = leader.ask(Request::assign, Body().u64(id).u64(0));
    if (!assigned.failed()) return;
    if (attempt == 50) throw std::runtime_error(assigned.text(1));
    std::this_thread::sleep_for(100ms);
  }
}

}  // namespace

int main(int count, char** words) try {
  std::string client, address, data;
  dqlite_node_id node = 0;
  std::vector<std::string> others;
  for (int at = 1; at + 1 < count; at += 2) {
    const std::string_view word = words[at];
    if (word == "--node") node = std::strtoull(words[at + 1], nullptr, 10);
    if (word == "--address") address = words[at + 1];
    if (word == "--data") data = words[at + 1];
    if (word == "--client") client = words[at + 1];
    if (word == "--add") others.emplace_back(words[at + 1]);
  }
  if (node != 0 && !address.empty() && !data.empty()) return run_node(node, address, data);
  if (client.empty()) {
    fmt::print(stderr, "usage: dqlite_worker --node ID --address A --data DIR | --client A [--add ID=A]...\n");
    return 2;
  }
  {
    Connection leader(client);
    for (const std::string& other : others) add(leader, other);
  }
  DqliteTarget target(client);
  return serve(target);
} catch (const std::exception& error) {
  fmt::print(stderr, "dqlite_worker: {}\n", error.what());
  return 1;
}
