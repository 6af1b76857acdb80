#include "log/log_map.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace flotilla::log {
namespace {
constexpr std::uint64_t mark_every_bytes = 64u << 10;
}

void LogMap::begin_anew(Index last, Term last_term) {
  marks_.clear();
  terms_.clear();
  first_ = last.next();
  last_ = last;
  last_term_ = last_term;
  mark_next_ = true;
}

void LogMap::supersede(Index first) {
  FLOTILLA_ASSERT(first);
  FLOTILLA_ASSERT(first <= last_.next());
  if (first == last_.next()) return;
  while (!marks_.empty() && marks_.back().first >= first) marks_.pop_back();
  while (!terms_.empty() && terms_.back().first >= first) terms_.pop_back();
  last_ = first.previous();
  first_ = std::min(first_, first);
  last_term_ = terms_.empty() ? Term{} : terms_.back().term;
  mark_next_ = true;
  FLOTILLA_ASSERT(marks_.empty() == (first_ == last_.next()));
}

void LogMap::add(Index index, Term term, std::uint64_t segment, std::uint64_t block, std::uint64_t record) {
  FLOTILLA_ASSERT(index == last_.next());
  FLOTILLA_ASSERT(block < record);
  if (mark_next_ || marks_.back().segment != segment || record - marks_.back().record >= mark_every_bytes) {
    FLOTILLA_ASSERT(marks_.empty() || marks_.back().segment <= segment);
    marks_.push_back(Mark{index, segment, block, record});
    mark_next_ = false;
  }
  if (terms_.empty() || terms_.back().term != term) terms_.push_back(TermRun{index, term});
  last_ = index;
  last_term_ = term;
}

Term LogMap::term_at(Index index) const {
  FLOTILLA_ASSERT(index >= first_);
  FLOTILLA_ASSERT(index <= last_);
  const auto after = std::upper_bound(terms_.begin(), terms_.end(), index,
                                      [](Index wanted, const TermRun& run) { return wanted < run.first; });
  FLOTILLA_ASSERT(after != terms_.begin());
  return std::prev(after)->term;
}

const Mark& LogMap::mark_at(Index index) const {
  FLOTILLA_ASSERT(index >= first_);
  FLOTILLA_ASSERT(index <= last_);
  const auto after = std::upper_bound(marks_.begin(), marks_.end(), index,
                                      [](Index wanted, const Mark& mark) { return wanted < mark.first; });
  FLOTILLA_ASSERT(after != marks_.begin());
  return *std::prev(after);
}

Index LogMap::reach_of(const Mark& mark) const {
  const auto next = std::upper_bound(marks_.begin(), marks_.end(), mark.first,
                                     [](Index wanted, const Mark& other) { return wanted < other.first; });
  return next == marks_.end() ? last_ : next->first.previous();
}

std::optional<Index> LogMap::newest_in_front(std::uint64_t segment) const {
  if (marks_.empty() || marks_.front().segment > segment) return std::nullopt;
  const auto next = std::upper_bound(marks_.begin(), marks_.end(), segment,
                                     [](std::uint64_t wanted, const Mark& mark) { return wanted < mark.segment; });
  return next == marks_.end() ? last_ : next->first.previous();
}

void LogMap::drop_front(std::uint64_t segment) {
  while (!marks_.empty() && marks_.front().segment <= segment) marks_.pop_front();
  first_ = marks_.empty() ? last_.next() : marks_.front().first;
  if (marks_.empty()) mark_next_ = true;
  // The run that holds first_index stays, from there on.
  while (terms_.size() > 1 && terms_[1].first <= first_) terms_.pop_front();
  if (marks_.empty()) terms_.clear();
  FLOTILLA_ASSERT(marks_.empty() == terms_.empty());
}

}  // namespace flotilla::log
