// Which commands every voter has, as they recorded it with their sessions (DESIGN 7): a leader takes no other into the
// log, because a member that lacks one must stop there.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "flotilla/error.hpp"
#include "raft/configuration.hpp"
#include "state/store.hpp"

namespace flotilla::node {

/// Thread: loop.
class CommandSets {
 public:
  /// Goes by these from now on. Cheap if nothing is new.
  void update(const raft::Configuration& configuration, std::shared_ptr<const state::Nodes> nodes);
  /// unknown_command, naming a voter that is not known to have it. Requires: update().
  std::optional<Error> refuse(std::string_view command) const;

 private:
  raft::Configuration configuration_;
  std::shared_ptr<const state::Nodes> nodes_;
  std::set<std::string, std::less<>> common_;  ///< of all voters
};

/// Why this node may not become a voter: a command that all voters have and it does not, or nothing known of it.
std::optional<std::string> lacks_commands(NodeId id, const raft::Configuration& configuration,
                                          const state::Nodes& nodes);

}  // namespace flotilla::node
