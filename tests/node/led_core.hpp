// A consensus core that a test leads by hand.
#pragma once

#include <utility>
#include <vector>

#include "raft/core.hpp"

namespace flotilla::test {

/// Member 1 of these; all up to index 1, term 1, is committed.
inline raft::Core core_of(std::vector<Member> members) {
  raft::Restored restored;
  restored.configuration.members = std::move(members);
  restored.configuration_index = Index{1};
  restored.base_index = Index{1};
  restored.base_term = Term{1};
  restored.hard_state.term = Term{1};
  restored.commit_index = restored.applied_index = Index{1};
  restored.first_index = Index{2};
  return raft::Core({.id = NodeId{1}}, std::move(restored));
}

/// What must be written is; the rest does not matter here.
inline void write_all(raft::Core& core) {
  while (core.has_ready()) {
    const raft::Ready ready = core.take_ready();
    const bool any = !ready.entries.empty();
    core.persisted(ready.sequence, any ? ready.entries.back().term : Term{},
                   any ? ready.entries.back().index : Index{});
  }
}

}  // namespace flotilla::test
