// What clients asked and were told, and in which order commands took effect: the oracle of the member simulator.
//
// The witness is the commands themselves: each records the log index at which it ran. A history is linearizable if its
// results are those of a sequential model run in index order, and if that order respects the order in which calls ended
// and others began. Local reads promise less: nothing older than what their own session saw or was told. Checked
// exactly, in O(n log n).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "flotilla/error.hpp"
#include "flotilla/types.hpp"

namespace flotilla::sim {

class History {
 public:
  /// One run of one member: its calls and reads, in the order of these calls.
  using Session = std::uint64_t;
  enum class ReadKind : std::uint8_t { local, linearizable };

  /// A client asks to append `id`, which is returned, to the list at `key`; the result is to be the list's new length.
  /// `fails`: it writes, then returns an error, and must leave nothing behind.
  std::uint64_t ask(Session session, std::string key, bool fails);
  /// The call ends. One that never ends died with its member.
  void answer(std::uint64_t id, Result<Bytes> result);
  /// The command runs at `index` on some member.
  void ran(std::uint64_t id, Index index);

  std::uint64_t ask_read(Session session, std::string key, ReadKind kind);
  /// The read sees so long a list, in a snapshot at `index`.
  void saw(std::uint64_t read, std::size_t length, Index index);

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
  struct Operation {
    Session session = 0;
    std::string key;
    bool fails = false;
    std::optional<Result<Bytes>> result;

    /// Its caller knows that it took effect.
    bool told() const { return result && (*result || (fails && result->error() == Errc::command_failed)); }
    /// Its caller knows nothing.
    bool open() const { return !result || (!*result && result->error() == Errc::outcome_unknown); }
  };
  struct Read {
    Session session = 0;
    std::string key;
    ReadKind kind = ReadKind::local;
    Index floor;  ///< what it must not miss
    std::size_t length = 0;
    Index index;
  };
  enum class What : std::uint8_t { asked, answered, ran, read_asked, read_saw };
  struct Event {
    What what;
    std::uint64_t id;
  };
  /// What has happened up to one event.
  struct Past {
    Index known;  ///< somebody was told, or saw, that it is so far
    std::map<Session, Index> known_to;
    Index newest_run;
  };

  void check_results();
  void check_refused();
  void check_order();
  void check_read(const Read& read, std::uint64_t id, Index newest_run);
  std::optional<Index> index_of(std::uint64_t id) const;

  std::vector<Event> events_;
  std::map<std::uint64_t, Operation> operations_;
  std::map<std::uint64_t, Read> reads_;
  std::map<Index, std::uint64_t> at_;  ///< the witness
  std::map<std::uint64_t, Index> index_of_;
  std::map<std::string, std::vector<Index>> lists_;  ///< the model
  Index acknowledged_;
  std::optional<std::string> broken_;
};

}  // namespace flotilla::sim
