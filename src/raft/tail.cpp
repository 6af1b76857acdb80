#include "raft/tail.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"

namespace flotilla::raft {

Tail::Tail(Index base_index, Term base_term, std::uint64_t base_time) {
  reset(base_index, base_term, base_time);
}

void Tail::reset(Index base_index, Term base_term, std::uint64_t base_time) {
  // Only before the first entry is there no term.
  FLOTILLA_ASSERT(base_index.value == 0 || base_term.value != 0);
  slots_.clear();
  evicted_ = base_index;
  evicted_end_ = 0;
  evicted_time_ = base_time;
  runs_.assign(1, Run{base_index, base_term});
  FLOTILLA_ASSERT(last_index() == base_index);
}

std::vector<Tail::Run>::const_iterator Tail::run_of(Index index) const noexcept {
  const auto after = std::upper_bound(runs_.begin(), runs_.end(), index,
                                      [](Index wanted, const Run& run) { return wanted < run.first; });
  FLOTILLA_ASSERT(after != runs_.begin());
  return std::prev(after);
}

std::optional<Term> Tail::term_at(Index index) const noexcept {
  if (index < known_first_index() || index > last_index()) return std::nullopt;
  return run_of(index)->term;
}

const Entry& Tail::at(Index index) const {
  FLOTILLA_ASSERT(in_memory(index));
  const Entry& entry = slots_[slot_of(index)].entry;
  FLOTILLA_ASSERT(entry.index == index);
  return entry;
}

std::uint64_t Tail::end_of(Index index) const {
  FLOTILLA_ASSERT(index >= evicted_);
  FLOTILLA_ASSERT(index <= last_index());
  return index == evicted_ ? evicted_end_ : slots_[slot_of(index)].end;
}

std::uint64_t Tail::bytes(Index after, Index through) const {
  FLOTILLA_ASSERT(after <= through);
  return end_of(through) - end_of(after);
}

std::vector<Entry> Tail::slice(Index first, Index last, std::size_t bytes_max) const {
  FLOTILLA_ASSERT(in_memory(first));
  FLOTILLA_ASSERT(last <= last_index());
  FLOTILLA_ASSERT(first <= last);
  const std::uint64_t limit = end_of(first.previous()) + bytes_max;
  const auto from = slots_.begin() + static_cast<std::ptrdiff_t>(slot_of(first));
  // Never skip one that does not fit and go on with the next: the slice must be contiguous.
  const auto to = std::partition_point(from + 1, slots_.begin() + static_cast<std::ptrdiff_t>(slot_of(last)) + 1,
                                       [&](const Slot& slot) { return slot.end <= limit; });
  std::vector<Entry> entries;
  entries.reserve(static_cast<std::size_t>(to - from));
  for (auto slot = from; slot != to; ++slot) entries.push_back(slot->entry);
  return entries;
}

void Tail::append(Entry entry) {
  FLOTILLA_ASSERT(entry.index == last_index().next());
  FLOTILLA_ASSERT(entry.term >= last_term());
  if (entry.term > last_term()) runs_.push_back(Run{entry.index, entry.term});
  const std::uint64_t end = end_of(last_index()) + record_bytes(entry);
  slots_.push_back(Slot{std::move(entry), end});
}

void Tail::truncate(Index last_kept) {
  FLOTILLA_ASSERT(last_kept >= evicted_);
  FLOTILLA_ASSERT(last_kept <= last_index());
  slots_.erase(slots_.begin() + static_cast<std::ptrdiff_t>(last_kept - evicted_), slots_.end());
  while (runs_.back().first > last_kept) runs_.pop_back();
  FLOTILLA_ASSERT(!runs_.empty());
}

void Tail::evict(Index through, std::size_t bytes_max) {
  FLOTILLA_ASSERT(through <= last_index());
  const std::uint64_t end = end_of(last_index());
  while (!slots_.empty() && evicted_ < through && end - evicted_end_ > bytes_max) {
    evicted_end_ = slots_.front().end;
    evicted_time_ = slots_.front().entry.time;
    evicted_ = evicted_.next();
    slots_.pop_front();
  }
}

void Tail::forget_terms(Index first) {
  first = std::min(first, evicted_);
  if (first <= known_first_index()) return;
  const auto run = run_of(first);
  const auto place = run - runs_.begin();
  runs_.erase(runs_.begin(), runs_.begin() + place);
  runs_.front().first = first;
  FLOTILLA_ASSERT(term_at(first).has_value());
}

Index Tail::first_of_term(Index index) const {
  FLOTILLA_ASSERT(term_at(index).has_value());
  return run_of(index)->first;
}

std::optional<Index> Tail::last_not_above(Term term, Index at_most) const noexcept {
  at_most = std::min(at_most, last_index());
  if (at_most < known_first_index()) return std::nullopt;
  auto run = run_of(at_most);
  while (run->term > term) {
    if (run == runs_.begin()) return std::nullopt;
    at_most = run->first.previous();
    --run;
  }
  return at_most;
}

const char* Tail::broken() const {
  std::uint64_t end = evicted_end_;
  Index index = evicted_;
  for (const Slot& slot : slots_) {
    ++index;
    end += record_bytes(slot.entry);
    if (slot.entry.index != index) return "the tail is contiguous";
    if (slot.end != end) return "the tail's byte counts are sums of its entries";
    if (term_at(index) != slot.entry.term) return "the term runs agree with the entries";
  }
  for (std::size_t i = 1; i < runs_.size(); ++i) {
    if (runs_[i - 1].first >= runs_[i].first || runs_[i - 1].term >= runs_[i].term) return "term runs rise";
  }
  return nullptr;
}

}  // namespace flotilla::raft
