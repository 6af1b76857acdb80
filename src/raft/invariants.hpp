// The invariants of one core, as named sentences. The cheap ones are checked after every input, in release too; those
// that compare several members are the simulator's (tests/sim/core).
#pragma once

#include <cstdint>

#include "flotilla/status.hpp"
#include "flotilla/types.hpp"

namespace flotilla::raft {

/// What the cheap invariants speak of: O(1) to take.
struct Facts {
  NodeId id;
  Role role = Role::follower;
  Term term;
  NodeId voted_for;
  NodeId leader_id;
  Index applied_index;
  Index delivered_index;  ///< handed to the applier
  Index commit_index;
  Index stable_index;
  Index queued_index;  ///< handed to the log
  Index last_index;
  Term last_term;
  Index first_index;
  Index configuration_index;
  Index term_start;  ///< leader: of the entry that began its term
  std::uint64_t taken = 0;
  std::uint64_t persisted = 0;
};

/// nullptr, or the sentence that does not hold in one state.
const char* broken(const Facts& now) noexcept;
/// nullptr, or the sentence that does not hold between two successive states of one run.
const char* broken(const Facts& before, const Facts& now) noexcept;

}  // namespace flotilla::raft
