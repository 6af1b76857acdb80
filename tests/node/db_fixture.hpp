// Members in this process, on loopback, with commands that tests can count.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "flotilla/flotilla.hpp"
#include "support/temp_dir.hpp"

namespace flotilla::test {

inline Commands test_commands() {
  Commands commands;
  commands.add("put", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    if (auto ok = args.expect(2); !ok) return fail(ok.error());
    if (auto put = txn.table("t").put(args[0], args[1]); !put) return fail(put.error());
    return Bytes();
  });
  // Appends, so that a command that takes effect twice is seen.
  commands.add("append", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    if (auto ok = args.expect(2); !ok) return fail(ok.error());
    Bytes value(txn.table("t").get(args[0]).value_or(""));
    value.append(args[1]);
    if (auto put = txn.table("t").put(args[0], value); !put) return fail(put.error());
    return value;
  });
  commands.add("throw", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    static_cast<void>(txn.table("t").put(args[0], "thrown"));
    throw std::runtime_error("on purpose");
  });
  commands.add("time", [](WriteTxn& txn, const Args&) -> Result<Bytes> {
    return std::to_string(txn.time().time_since_epoch().count());
  });
  return commands;
}

inline Options test_options(const std::filesystem::path& data_dir) {
  Options options;
  options.data_dir = data_dir;
  options.map_size = 64u << 20;
  options.segment_bytes = 1u << 20;
  options.election_timeout = std::chrono::milliseconds(300);
  options.heartbeat_interval = std::chrono::milliseconds(50);
  options.log_sink = [](LogLevel, std::string_view) {};
  return options;
}

/// Waits for something that other threads bring about; fails the test if it does not come.
template <class F>
void eventually(F&& condition, std::chrono::seconds limit = std::chrono::seconds(30)) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    REQUIRE(std::chrono::steady_clock::now() < end);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

inline std::string get(DB& db, std::string_view key) {
  auto txn = db.read();
  REQUIRE(txn);
  return std::string(txn->table("t").get(key).value_or("(none)"));
}

/// `count` members: the first founds, the others join it; ready when all are voters.
class Cluster {
 public:
  using Adjust = std::function<void(Options&)>;
  explicit Cluster(std::size_t count, const Adjust& adjust = {}) : options_(count) {
    for (std::size_t i = 0; i < count; ++i) {
      options_[i] = test_options(dir_ / std::to_string(i));
      if (adjust) adjust(options_[i]);
      options_[i].listen = "127.0.0.1:0";
      options_[i].found = i == 0;
      if (i > 0) options_[i].join = {options_[0].listen};
      members_.emplace_back();
      start(i);
      options_[i].listen = (*this)[i].status().listen;  // the same port after a restart
    }
    eventually([&] {
      const auto members = (*this)[0].status().members;
      return members.size() == count && std::all_of(members.begin(), members.end(), [](auto& m) { return m.voter; });
    });
  }

  /// Starts one more, which joins as a learner and stays one; its number.
  std::size_t add_learner() {
    const std::size_t i = size();
    options_.push_back(options_[0]);
    options_[i].data_dir = dir_ / std::to_string(i);
    options_[i].listen = "127.0.0.1:0";
    options_[i].found = false;
    options_[i].join.clear();
    for (std::size_t other = 0; other < i; ++other) options_[i].join.push_back(options_[other].listen);
    options_[i].join_as_learner = true;
    members_.emplace_back();
    start(i);
    options_[i].listen = (*this)[i].status().listen;
    eventually([&] {
      const auto members = (*this)[i].status().members;
      return std::any_of(members.begin(), members.end(), [&](auto& m) { return m.id == id(i); });
    });
    return i;
  }
  NodeId id(std::size_t i) { return (*this)[i].status().node_id; }
  std::filesystem::path path() const { return dir_.path(); }
  Options& options(std::size_t i) { return options_[i]; }

  DB& operator[](std::size_t i) { return *members_[i]; }
  std::size_t size() const { return members_.size(); }
  void stop(std::size_t i) { members_[i].reset(); }
  void start(std::size_t i) {
    auto db = DB::open(options_[i], test_commands());
    if (!db) FAIL(db.error().message());
    members_[i].emplace(std::move(*db));
  }
  bool running(std::size_t i) const { return members_[i].has_value(); }
  /// The running member that leads, once there is one.
  std::size_t leader() {
    std::size_t found = 0;
    eventually([&] {
      for (std::size_t i = 0; i < size(); ++i) {
        if (running(i) && (*this)[i].is_leader()) {
          found = i;
          return true;
        }
      }
      return false;
    });
    return found;
  }
  std::size_t follower() {
    const std::size_t leads = leader();
    for (std::size_t i = 0; i < size(); ++i) {
      if (running(i) && i != leads) return i;
    }
    return leads;
  }

 private:
  TempDir dir_;
  std::vector<Options> options_;
  std::vector<std::optional<DB>> members_;
};

}  // namespace flotilla::test
