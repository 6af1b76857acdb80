// Barriers: calls that wait for a confirmed read index and then for the local apply to reach it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "base/executor.hpp"
#include "flotilla/db.hpp"
#include "raft/core.hpp"

namespace flotilla::node {

/// Thread: loop.
class Reads {
 public:
  struct Barrier {
    Duration deadline{};
    IndexCompletion done;
    Index at_least;  ///< wait for this index instead of asking for one, if not 0
  };

  /// `first_id` is drawn at random at each start: an answer to a read of an earlier run must not fit one of this run.
  explicit Reads(std::uint64_t first_id) : last_id_(first_id) {}

  /// Asked for in this turn's round, or waits for its index.
  void add(Barrier barrier, Index applied_index);
  /// One request for all that gathered since the last one.
  void request(raft::Core& core);
  void answer(const raft::ReadState& state, Index applied_index);
  void applied(Index applied_index);
  /// Ends what is past its deadline; asks again for what no leader confirmed.
  void tick(Duration now, bool leader_known);
  void end_all(const Error& error);
  std::size_t size() const;
  bool empty() const { return size() == 0; }

 private:
  std::vector<Barrier> gathering_;
  std::map<std::uint64_t, std::vector<Barrier>> requested_;
  std::multimap<Index, Barrier> waiting_;
  std::vector<Barrier> unanswered_;  ///< refused; asked again at the next tick
  std::uint64_t last_id_;
};

}  // namespace flotilla::node
