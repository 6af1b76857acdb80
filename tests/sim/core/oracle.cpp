#include "oracle.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace flotilla::sim {

void broken(const char* invariant, const std::string& detail) {
  throw Broken(fmt::format("{}: {}", invariant, detail));
}

std::uint64_t mix(std::uint64_t left, std::uint64_t right) noexcept {
  std::uint64_t mixed = (left ^ (right + 0x9e3779b97f4a7c15u + (left << 6) + (left >> 2))) * 0xbf58476d1ce4e5b9u;
  mixed ^= mixed >> 29;
  return mixed * 0x94d049bb133111ebu;
}

std::uint64_t chain_after(std::uint64_t before, const raft::Entry& entry) noexcept {
  return mix(mix(before, entry.term.value), (std::uint64_t{entry.crc} << 32) ^ entry.payload.size());
}

const std::pair<Index, raft::Configuration>& Oracle::configuration_at(Index index) const {
  auto at = configurations_.rbegin();
  while (at->first > index) ++at;
  return *at;
}

void Oracle::appended(NodeId node, Index index, Term term, std::uint64_t chain) {
  if (seen_.size() <= index.value) seen_.resize(static_cast<std::size_t>(index.value) + 1);
  auto& terms = seen_[static_cast<std::size_t>(index.value)];
  for (const auto& [known_term, known_chain] : terms) {
    if (known_term != term) continue;
    if (known_chain != chain)
      broken("log-matching", fmt::format("node {} entry {} term {}", node.value, index.value, term.value));
    return;
  }
  terms.emplace_back(term, chain);
}

void Oracle::delivered(NodeId node, const raft::Entry& entry, std::uint64_t chain) {
  if (entry.index <= committed_index()) {
    const Committed& known = committed(entry.index);
    if (known.chain == chain && known.term == entry.term) return;
    broken("state-machine-safety", fmt::format("node {} applies another entry {}", node.value, entry.index.value));
  }
  if (entry.index != committed_index().next()) {
    broken("apply-contiguous", fmt::format("node {} skips to {}", node.value, entry.index.value));
  }
  if (!committed_.empty() && entry.time < committed_.back().time) broken("time-never-falls", "along the log");
  committed_.push_back({entry.term, chain, entry.time});
  if (entry.type == raft::EntryType::configuration) {
    configurations_.emplace_back(entry.index, raft::decode_configuration(entry.payload.view()).value());
  }
}

void Oracle::committed_by(Term by, Index index, std::uint64_t chain) {
  highest_commit = index;
  if (!commits_.empty() && by < commits_.back().by)
    broken("leader-completeness", "an earlier leader commits after a later one");
  if (!commits_.empty() && by == commits_.back().by) {
    commits_.back() = {by, index, chain};
  } else {
    commits_.push_back({by, index, chain});
  }
}

std::pair<Index, std::uint64_t> Oracle::committed_before(Term term) const {
  for (auto at = commits_.rbegin(); at != commits_.rend(); ++at) {
    if (at->by < term) return {at->index, at->chain};
  }
  return {Index{}, 0};
}

bool Oracle::leads(NodeId node, Term term) {
  const auto [at, fresh] = leaders_.emplace(term, node);
  if (at->second != node) {
    broken("one-leader-per-term", fmt::format("nodes {} and {} in term {}", at->second.value, node.value, term.value));
  }
  return fresh;
}

void Oracle::voted(NodeId node, Term term, NodeId vote) {
  if (!vote) return;
  const auto [at, fresh] = votes_.emplace(std::pair(node, term), vote);
  if (at->second != vote) {
    broken("one-vote-per-term",
           fmt::format("node {} for {} and {} in term {}", node.value, at->second.value, vote.value, term.value));
  }
}

bool Oracle::has_vote(NodeId node, Term term, NodeId vote) const {
  const auto at = votes_.find({node, term});
  return at != votes_.end() && at->second == vote;
}

}  // namespace flotilla::sim
