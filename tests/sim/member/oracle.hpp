// What must be true of all members together, judged from outside: by what left them on the network, by what their disks
// would give back after a power loss, and by the role, term and indexes of each core.
//
// Promises are taken off the network, because that is where others begin to rely on them: an acknowledgement or a vote
// that leaves too early is wrong even if nothing crashes. Elections and commits are judged after every event of a
// member, when no time has passed since they happened.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "disk_log.hpp"
#include "raft/configuration.hpp"
#include "raft/core.hpp"
#include "raft/message.hpp"

namespace flotilla::sim {

/// One member's disk, as the oracle sees it.
class Disk {
 public:
  virtual ~Disk() = default;
  /// Of a durable entry; none if a power loss now would leave none there.
  virtual std::optional<Term> durable_term(Index index) const = 0;
  /// The end of what is durable.
  virtual std::pair<Term, Index> durable_end() const = 0;
  /// All of it, the long way.
  virtual Result<DiskLog> read() const = 0;
};

class Oracle {
 public:
  explicit Oracle(std::function<void(std::string)> broken) : broken_(std::move(broken)) {}

  /// The disk that holds this identity, for as long as it is asked about. The founder's comes first.
  void add(NodeId node, const Disk& disk);
  /// A message leaves its sender. `to`: the core that it is for, if that runs.
  void said(const raft::Message& message, const raft::Core* to);
  /// An event of this member is over.
  void look(const raft::Core& core);
  /// Its run is over; `disk` is what is left.
  void ended(NodeId node, const DiskLog& disk);

  /// Its disk is an old one of its own: what it said since then it will not remember.
  void set_back(NodeId node, const DiskLog& disk);

  Index committed() const { return Index{committed_.size()}; }
  std::size_t leaders() const { return leaders_.size(); }
  std::uint64_t truncations() const { return truncations_; }
  std::size_t configurations() const { return configurations_.size(); }

 private:
  struct View {  ///< what was seen of a core after its last event, in one run
    Role role = Role::follower;
    Term term;
    Index commit_index;
    Index last_index;
    Index stable_index;
    Index configuration_index;
    raft::Configuration configuration;
    std::uint64_t looks = 0;
  };
  struct Committed {
    Term term;
    Term by;  ///< the leader's that committed it
  };
  struct Claim {
    Index last_index;
    Term last_term;
  };

  Term committed_term(Index index) const { return committed_[static_cast<std::size_t>(index.value - 1)].term; }
  bool is_old(const raft::Message& message) const;
  void voted(NodeId node, Term term, NodeId vote);
  void said_vote_request(const raft::Message& message, const raft::VoteRequest& request);
  void said_vote(const raft::Message& message);
  void said_append(const raft::AppendRequest& request);
  void said_accepted(const raft::Message& message, Index match_index, const raft::Core* leader);
  void check_leader(const raft::Core& core);
  void check_change(const raft::Core& core, const View& view);
  void check_commit(const raft::Core& core, const View& view);
  void check_vote_durable(NodeId node, Term term, NodeId vote);
  void check_entry(Index index, Term term, std::uint32_t crc, Term prev_term);
  bool may_commit(const raft::Core& core, const View& view, Term term) const;
  bool has_quorum(const raft::Core& core, const View& view, Index index, Term term) const;
  bool on_majority(Index index, Term term, const raft::Configuration& configuration) const;
  std::optional<Term> durable_term(NodeId node, Index index) const;
  bool holds(NodeId node, Index index, Term term) const;
  void broken(std::string what) const { broken_(std::move(what)); }

  std::function<void(std::string)> broken_;
  std::map<NodeId, const Disk*> disks_;
  std::map<NodeId, View> views_;
  std::map<NodeId, Term> terms_;  ///< the newest of each node, over all its runs
  std::vector<Committed> committed_;
  std::map<Term, NodeId> leaders_;
  std::map<std::pair<NodeId, Term>, NodeId> votes_;
  std::map<std::pair<NodeId, Term>, Claim> candidates_;
  std::map<std::pair<Index, Term>, std::pair<std::uint32_t, Term>> entries_;  ///< record and term of the one before
  std::set<Index> configurations_;
  std::uint64_t truncations_ = 0;
};

}  // namespace flotilla::sim
