// Who belongs to the cluster. In force as soon as its entry is in the log, committed or not (thesis 4.1).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "flotilla/status.hpp"
#include "flotilla/types.hpp"

namespace flotilla::raft {

/// In one group of a configuration.
inline constexpr std::size_t members_max = 64;

/// Members sorted by id, each once. Joint (thesis 4.3) while `outgoing` is not empty: then decisions need a majority of
/// the voters among `members` and a majority of `outgoing`.
struct Configuration {
  std::vector<Member> members;   ///< voters and learners of the newest (incoming) group
  std::vector<Member> outgoing;  ///< voters of the group that is being left; all voters

  bool joint() const noexcept { return !outgoing.empty(); }
  /// In the incoming group, as voter or learner; nullptr if absent.
  const Member* find(NodeId id) const noexcept;
  /// A voter of either group.
  bool is_voter(NodeId id) const noexcept;
  /// In either group.
  bool contains(NodeId id) const noexcept;
  /// All ids of both groups, sorted, each once.
  std::vector<NodeId> ids() const;

  friend bool operator==(const Configuration&, const Configuration&) = default;
};

/// Whether a cluster may be governed by it: sorted, ids distinct and not 0, at least one voter among `members`, only
/// voters in `outgoing`, groups of at most members_max, nobody both a voter and joining.
bool valid(const Configuration& configuration) noexcept;

/// u32 version = 1, then the two lists: u32 count, then per member id u64, kind u8 (0 learner, 1 voter, 2 learner that
/// is joining), address (u32 length, bytes).
std::string encode(const Configuration& configuration);
/// nullopt: malformed, unsorted, doubled ids, or over 64 members.
std::optional<Configuration> decode_configuration(std::string_view bytes);

}  // namespace flotilla::raft
