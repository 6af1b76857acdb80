// Loads records through one member and keeps the books: what was acknowledged, what may have happened besides.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "catalog.hpp"
#include "client.hpp"
#include "flotilla/error.hpp"

namespace catalog {

/// One record of the input.
struct Record {
  std::string key;
  std::string_view text;
};

/// A parsed input file. Malformed records are counted, not kept.
struct Input {
  std::shared_ptr<const std::string> text;  ///< what the records view into; stays put when this is moved
  Identity identity = Identity::archive;
  std::vector<Record> records;
  std::vector<std::string> malformed;  ///< "line N: why"
};
/// Reads a dpkg status file or a Packages index: the former if any record has a Status field.
flotilla::Result<Input> read_input(const std::string& path);

/// What must be found of one key at the end.
struct Ledger {
  std::uint64_t acknowledged = 0;
  std::uint64_t asked_again = 0;  ///< after an unknown outcome: that many more revisions may be there
};

/// Sends every record at least once, at most `window` at a time. A refused one is sent again; one of unknown outcome is
/// sent again on the condition that it did not happen. Thread: one calls; answers arrive on the clients' threads.
class Loader {
 public:
  using Clock = std::chrono::steady_clock;

  Loader(const std::vector<Record>& records, Identity identity, std::size_t window);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Sends the first `limit` records through `client`, until at least `goal` are acknowledged; those in flight then
  /// stay in flight. Requires: goal <= limit. Calls `progress` a few times a second. timeout without any
  /// acknowledgement for `patience`; command_failed if a record was refused for good; closed if the client has lost its
  /// member: load through another.
  flotilla::Result<void> load(Client& client, std::size_t goal, std::size_t limit,
                              const std::function<void(std::size_t)>& progress,
                              std::chrono::seconds patience = std::chrono::seconds(25));
  /// Waits until nothing is in flight.
  void drain();

  std::size_t acknowledged() const;
  std::size_t in_flight() const;
  std::size_t asked_again() const;
  /// The longest time without an acknowledgement since begin_pause_watch().
  Clock::duration longest_pause() const;
  void begin_pause_watch();
  /// By key. Requires: nothing in flight.
  const std::map<std::string, Ledger>& ledger() const { return ledger_; }

 private:
  void send(Client& client, std::size_t position);
  void ended(std::size_t position, const Answer& answer, std::optional<std::uint64_t> condition);
  void acknowledge(const std::string& key);

  const std::vector<Record>& records_;
  const Identity identity_;
  const std::size_t window_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<std::size_t> queue_;
  std::map<std::string, Ledger> ledger_;
  std::vector<bool> conditional_;
  std::size_t acknowledged_ = 0;
  std::size_t in_flight_ = 0;
  std::size_t asked_again_ = 0;
  Clock::time_point last_acknowledgement_;
  Clock::time_point not_before_;
  Clock::duration longest_pause_{};
  std::optional<std::string> failure_;
};

/// Compares a member's revisions with the ledger: the first finding, or nothing. A record that is missing, one that is
/// there more often than it was written, and one that nobody wrote are findings.
std::optional<std::string> compare(const std::map<std::string, Ledger>& ledger,
                                   const std::map<std::string, std::uint64_t>& revisions);

}  // namespace catalog
