// What a majority has reached, in simple and in joint configurations (thesis 4.3).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

#include "base/assert.hpp"
#include "raft/configuration.hpp"

namespace flotilla::raft {

/// The greatest value that a majority (more than half) of `values` reaches. Requires: not empty. Reorders them.
std::uint64_t majority_value(std::span<std::uint64_t> values) noexcept;

enum class VoteResult : std::uint8_t { pending, won, lost };
/// Of one group: won by more than half, lost once that cannot happen any more.
VoteResult majority_vote(std::size_t voters, std::size_t granted, std::size_t refused) noexcept;

namespace detail {

template <class F>
std::uint64_t group_value(const std::vector<Member>& group, F& value_of) {
  std::array<std::uint64_t, members_max> values;
  std::size_t count = 0;
  for (const Member& member : group) {
    if (!member.voter) continue;
    FLOTILLA_ASSERT(count < values.size());
    values[count++] = value_of(member.id);
  }
  // A group without voters has no objection: the other group decides.
  if (count == 0) return std::numeric_limits<std::uint64_t>::max();
  return majority_value(std::span(values).first(count));
}

template <class F>
VoteResult group_vote(const std::vector<Member>& group, F& vote_of) {
  std::size_t voters = 0, granted = 0, refused = 0;
  for (const Member& member : group) {
    if (!member.voter) continue;
    const std::optional<bool> vote = vote_of(member.id);
    ++voters;
    granted += vote.has_value() && *vote ? 1u : 0u;
    refused += vote.has_value() && !*vote ? 1u : 0u;
  }
  return voters == 0 ? VoteResult::won : majority_vote(voters, granted, refused);
}

inline bool has_voter(const Configuration& configuration) {
  const auto is_voter = [](const Member& member) { return member.voter; };
  const auto& members = configuration.members;
  return configuration.joint() || std::any_of(members.begin(), members.end(), is_voter);
}

}  // namespace detail

/// The greatest value that a majority of each group reaches, where `value_of(NodeId)` is a voter's. 0 without voters.
template <class F>
std::uint64_t quorum_value(const Configuration& configuration, F value_of) {
  if (!detail::has_voter(configuration)) return 0;
  return std::min(detail::group_value(configuration.members, value_of),
                  detail::group_value(configuration.outgoing, value_of));
}

/// Won in each group; lost as soon as one is. `vote_of(NodeId)` is nullopt for a voter who has not answered. Pending
/// for ever without voters.
template <class F>
VoteResult quorum_vote(const Configuration& configuration, F vote_of) {
  if (!detail::has_voter(configuration)) return VoteResult::pending;
  const VoteResult incoming = detail::group_vote(configuration.members, vote_of);
  const VoteResult outgoing = detail::group_vote(configuration.outgoing, vote_of);
  if (incoming == VoteResult::lost || outgoing == VoteResult::lost) return VoteResult::lost;
  return incoming == VoteResult::won ? outgoing : incoming;
}

}  // namespace flotilla::raft
