// What clients asked and were told, and in which order commands took effect: the oracle of the member simulator.
//
// The witness is the commands themselves: each records the log index at which it ran. A history is linearizable if its
// results are those of a sequential model run in index order, and if that order respects real time. Checked exactly, in
// O(n log n).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/executor.hpp"
#include "flotilla/error.hpp"
#include "flotilla/types.hpp"

namespace flotilla::sim {

/// One client operation: append `id` to the list at `key`; the result is the list's new length.
struct Operation {
  std::uint64_t id = 0;
  std::string key;
  bool fails = false;  ///< writes, then returns an error: must leave nothing behind
  Duration invoked{};
  std::optional<Duration> ended;  ///< none: its member died first
  std::optional<Result<Bytes>> result;
};

/// What a read saw: the length of one list, in a snapshot at an index.
struct ReadSeen {
  std::string key;
  std::size_t length = 0;
  Index index;
  Index at_least;  ///< largest index of any operation acknowledged before the read was invoked (or by its own member)
};

class History {
 public:
  std::uint64_t invoke(std::string key, bool fails, Duration now);
  /// Returns the index at which it took effect, as its caller was told; 0 if the caller was not told that it did.
  Index end(std::uint64_t id, Result<Bytes> result, Duration now);
  /// A command runs at `index` on some member. Broken: another one ran there, or this one ran elsewhere.
  void ran(std::uint64_t id, Index index);
  void saw(ReadSeen seen) { reads_.push_back(std::move(seen)); }
  /// Largest index of an operation acknowledged so far.
  Index acknowledged() const { return acknowledged_; }
  void broken(std::string what) {
    if (!broken_) broken_ = std::move(what);
  }
  const std::optional<std::string>& first_broken() const { return broken_; }

  /// Everything that can only be said in hindsight.
  void check();
  /// How the newest `count` operations ended.
  std::string describe_last(std::size_t count) const;
  std::size_t operations() const { return operations_.size(); }
  std::size_t count(Errc code) const;
  std::size_t succeeded() const;
  std::size_t reads() const { return reads_.size(); }

 private:
  std::map<std::uint64_t, Operation> operations_;
  std::map<Index, std::uint64_t> at_;  ///< the witness
  std::map<std::uint64_t, Index> index_of_;
  std::vector<ReadSeen> reads_;
  Index acknowledged_;
  std::optional<std::string> broken_;
};

}  // namespace flotilla::sim
