// The end of the log in memory, and the terms of more of it than that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <boost/container/deque.hpp>

#include "flotilla/types.hpp"
#include "raft/entry.hpp"

namespace flotilla::raft {

/// Entries (memory_first_index() .. last_index()), contiguous, terms never decreasing. Terms stay known further back,
/// as runs: (first index, term) of each stretch of equal terms. An index whose term is not known has none: never 0.
class Tail {
 public:
  /// Begins right after (base_index, base_term), whose time was base_time.
  Tail(Index base_index, Term base_term, std::uint64_t base_time);

  /// The oldest entry in memory; last_index() + 1 if there is none.
  Index memory_first_index() const noexcept { return evicted_.next(); }
  Index last_index() const noexcept { return evicted_ + slots_.size(); }
  Term last_term() const noexcept { return runs_.back().term; }
  std::uint64_t last_time() const noexcept { return slots_.empty() ? evicted_time_ : slots_.back().entry.time; }
  /// nullopt: before what is known, or past the end.
  std::optional<Term> term_at(Index index) const noexcept;
  /// The oldest index whose term is known.
  Index known_first_index() const noexcept { return runs_.front().first; }

  bool in_memory(Index index) const noexcept { return index > evicted_ && index <= last_index(); }
  /// Requires: in_memory(index).
  const Entry& at(Index index) const;
  /// From `first` to at most `last`, stopping before `bytes_max` is exceeded but with at least one. Requires: first in
  /// memory, last <= last_index().
  std::vector<Entry> slice(Index first, Index last, std::size_t bytes_max) const;
  /// Record bytes of the entries in (after, through]. Requires: after + 1 >= memory_first_index(), through <=
  /// last_index().
  std::uint64_t bytes(Index after, Index through) const;

  /// Requires: entry.index = last_index() + 1, entry.term >= last_term().
  void append(Entry entry);
  /// Removes everything after `last_kept`. Requires: last_kept + 1 >= memory_first_index().
  void truncate(Index last_kept);
  /// Begins anew after a snapshot.
  void reset(Index base_index, Term base_term, std::uint64_t base_time);
  /// Lets entries at or below `through` leave memory until at most `bytes_max` remain. Their terms stay known.
  void evict(Index through, std::size_t bytes_max);
  /// Forgets terms below `first`, as far as no entry in memory needs them.
  void forget_terms(Index first);

  /// The first known index of the term that `index` has. Requires: term_at(index).
  Index first_of_term(Index index) const;
  /// The last known index at or below `at_most` whose term is at most `term`; nullopt if there is none.
  std::optional<Index> last_not_above(Term term, Index at_most) const noexcept;

  /// Costly: runs, contiguity and sizes agree. The name of what is broken, or nullptr.
  const char* broken() const;

 private:
  struct Slot {
    Entry entry;
    std::uint64_t end;  ///< record bytes of everything ever appended up to here, without what was truncated
  };
  struct Run {
    Index first;
    Term term;
  };
  std::uint64_t end_of(Index index) const;
  std::size_t slot_of(Index index) const { return static_cast<std::size_t>(index - evicted_) - 1; }
  /// The run that `index` is in. Requires: index >= known_first_index().
  std::vector<Run>::const_iterator run_of(Index index) const noexcept;

  /// In blocks that stay where they are: a ring would move all of them, some ten milliseconds' worth, when it grows.
  boost::container::deque<Slot, void, boost::container::deque_options_t<boost::container::block_size<1024>>> slots_;
  Index evicted_;  ///< the entry before the first slot
  std::uint64_t evicted_end_ = 0;
  std::uint64_t evicted_time_;
  std::vector<Run> runs_;  ///< Invariant: never empty, firsts and terms strictly rising
};

}  // namespace flotilla::raft
