// A client of one catalogd: requests may overlap, answers come in any order.
#pragma once

#include <chrono>
#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "catalog.hpp"
#include "flotilla/stream.hpp"
#include "wire.hpp"

namespace catalog {

/// How a request ended; `unknown` also covers a connection that was lost before the answer.
struct Answer {
  enum class Outcome : std::uint8_t { ok, refused, unknown, failed };
  Outcome outcome = Outcome::unknown;
  std::string body;

  bool ok() const { return outcome == Outcome::ok; }
};

/// What a member says of itself.
struct MemberStatus {
  std::string role, leader, fault;
  std::uint64_t term = 0, commit = 0, applied = 0, last = 0;
  std::uint64_t snapshots = 0;  ///< installed since it started
  unsigned voters = 0, members = 0;
};

/// Contents of one member, from one snapshot of its own.
struct Contents {
  std::uint64_t index = 0;
  std::string hash;
  std::uint64_t records = 0;

  friend bool operator==(const Contents&, const Contents&) = default;
};

/// Thread: any. Destroying it ends outstanding requests as unknown.
class Client {
 public:
  using Done = std::function<void(Answer)>;

  /// io_error, timeout.
  static flotilla::Result<std::unique_ptr<Client>> connect(flotilla::StreamMux& mux, const flotilla::Address& address);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// `done` runs once, on the thread that reads answers.
  void request(std::vector<std::string> words, std::string body, Done done);
  /// Blocks for the answer; unknown after the deadline.
  Answer ask(std::vector<std::string> words, std::string body = {},
             std::chrono::milliseconds deadline = std::chrono::seconds(30));

  /// False once the stream has ended: every request ends as unknown then.
  bool connected();

  void upsert(Identity identity, std::optional<std::uint64_t> revision, std::string record, Done done);
  std::optional<MemberStatus> status();
  std::optional<Contents> contents();
  std::optional<std::vector<std::string>> dependents(const std::string& name);
  std::optional<std::map<std::string, std::uint64_t>> revisions();

 private:
  explicit Client(flotilla::Stream stream);
  void read_answers();

  flotilla::Stream stream_;
  std::mutex write_mutex_;
  std::mutex mutex_;  // guards what follows
  std::map<std::string, Done> waiting_;
  std::uint64_t last_id_ = 0;
  bool ended_ = false;
  std::thread reader_;
};

}  // namespace catalog
