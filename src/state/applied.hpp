// Where in the log a database stands.
#pragma once

#include "flotilla/types.hpp"
#include "raft/configuration.hpp"

namespace flotilla::state {

/// The position in the log that the database includes, and what goes with it: all in one LMDB transaction with the
/// data.
struct Applied {
  Index index;
  Term term;
  std::uint64_t time = 0;
  raft::Configuration configuration;  ///< the newest at or below index
  Index configuration_index;
};

}  // namespace flotilla::state
