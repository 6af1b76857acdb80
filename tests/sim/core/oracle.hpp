// What is true of the whole cluster at every step, judged from outside: logs handed to disks, messages that left, and
// entries handed to appliers; never what a core says about itself.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "raft/configuration.hpp"
#include "raft/entry.hpp"

namespace flotilla::sim {

/// An invariant does not hold.
struct Broken : std::runtime_error {
  using std::runtime_error::runtime_error;
};
[[noreturn]] void broken(const char* invariant, const std::string& detail);

std::uint64_t mix(std::uint64_t left, std::uint64_t right) noexcept;
/// Identifies a log up to and including `entry`, given the chain up to the entry before it.
std::uint64_t chain_after(std::uint64_t before, const raft::Entry& entry) noexcept;

class Oracle {
 public:
  explicit Oracle(raft::Configuration first) { configurations_.push_back({Index{}, std::move(first)}); }

  struct Committed {
    Term term;
    std::uint64_t chain;
    std::uint64_t time;
  };
  /// Every entry that any member was ever told is committed.
  Index committed_index() const { return Index{committed_.size()}; }
  const Committed& committed(Index index) const { return committed_.at(static_cast<std::size_t>(index.value - 1)); }
  std::uint64_t chain(Index index) const { return index ? committed(index).chain : 0; }
  /// In force at a committed index, and where it stands.
  const std::pair<Index, raft::Configuration>& configuration_at(Index index) const;

  /// log-matching: equal index and term mean equal prefixes.
  void appended(NodeId node, Index index, Term term, std::uint64_t chain);
  /// state-machine-safety: one entry per index, ever.
  void delivered(NodeId node, const raft::Entry& entry, std::uint64_t chain);
  /// one-leader-per-term. True if this leadership is new.
  bool leads(NodeId node, Term term);
  /// one-vote-per-term, of what reached a disk.
  void voted(NodeId node, Term term, NodeId vote);
  bool has_vote(NodeId node, Term term, NodeId vote) const;

  /// A leader of `by` was the first to know that everything up to `index` is committed.
  void committed_by(Term by, Index index, std::uint64_t chain);
  /// leader-completeness: what leaders of earlier terms committed, as index and chain.
  std::pair<Index, std::uint64_t> committed_before(Term term) const;
  /// TimeoutNow was sent; and whether a leadership follows from one.
  void ordered(NodeId to, Term term) { orders_.insert({to, term.next()}); }
  bool was_ordered(NodeId node, Term term) const { return orders_.contains({node, term}); }

  /// The highest commit index any core ever had.
  Index highest_commit;
  /// What some client saw: an acknowledged write's index, or the state a read was answered from.
  Index observed;

 private:
  std::vector<Committed> committed_;
  std::vector<std::pair<Index, raft::Configuration>> configurations_;
  std::vector<std::vector<std::pair<Term, std::uint64_t>>> seen_;  ///< by index
  struct Commit {
    Term by;
    Index index;
    std::uint64_t chain;
  };
  std::vector<Commit> commits_;  ///< terms and indexes rise
  std::set<std::pair<NodeId, Term>> orders_;
  std::map<Term, NodeId> leaders_;
  std::map<std::pair<NodeId, Term>, NodeId> votes_;
};

}  // namespace flotilla::sim
