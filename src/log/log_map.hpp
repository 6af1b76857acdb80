// Where the entries of the log lie on disk, and their terms. Memory grows with bytes of log (one mark per 64 KiB) and
// with changes of term, not with entries.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "flotilla/types.hpp"

namespace flotilla::log {

/// Records between two marks lie one after another, in blocks that follow each other in one segment; only records at or
/// above the next mark's index may lie between them too (superseded ones), always after those below it.
struct Mark {
  Index first;                ///< the entry whose record is at `record`
  std::uint64_t segment = 0;  ///< the file
  std::uint64_t block = 0;    ///< offset of the block that holds the record
  std::uint64_t record = 0;   ///< offset of the record
};

/// Invariant: the log is [first_index, last_index], empty if first_index = last_index + 1. Marks ascend by index and by
/// place; the first mark's index is first_index unless the log is empty; then there is none.
class LogMap {
 public:
  Index first_index() const { return first_; }
  Index last_index() const { return last_; }
  Term last_term() const { return last_term_; }
  bool empty() const { return marks_.empty(); }

  /// Empty, and the next entry is last.next().
  void begin_anew(Index last, Term last_term);
  /// Drops the entries from `first` on. Requires: first <= last_index().next(). One below first_index() empties the log
  /// and lets it begin there.
  void supersede(Index first);
  /// The next entry. Its record and block are at these places.
  void add(Index index, Term term, std::uint64_t segment, std::uint64_t block, std::uint64_t record);

  /// Requires: first_index() <= index <= last_index().
  Term term_at(Index index) const;
  /// The last mark at or before `index`. Requires: as above.
  const Mark& mark_at(Index index) const;
  /// The last entry that is read by walking on from `mark`.
  Index reach_of(const Mark& mark) const;

  /// The newest entry that lives in `segment`, the oldest segment there is; none if none does.
  std::optional<Index> newest_in_front(std::uint64_t segment) const;
  /// Forgets the entries in segments up to `segment`.
  void drop_front(std::uint64_t segment);

  std::size_t marks() const { return marks_.size(); }

 private:
  struct TermRun {
    Index first;
    Term term;
  };

  Index first_{1};
  Index last_{0};
  Term last_term_;
  bool mark_next_ = true;  ///< the next record does not lie right behind the one before it
  std::deque<Mark> marks_;
  std::deque<TermRun> terms_;
};

}  // namespace flotilla::log
