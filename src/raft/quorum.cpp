#include "raft/quorum.hpp"

#include "base/assert.hpp"

namespace flotilla::raft {

std::uint64_t majority_value(std::span<std::uint64_t> values) noexcept {
  FLOTILLA_ASSERT(!values.empty());
  // Ascending: the values from this place on are n - (n - 1) / 2 = n / 2 + 1 many.
  const std::size_t place = (values.size() - 1) / 2;
  FLOTILLA_ASSERT(values.size() - place == values.size() / 2 + 1);
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(place);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

VoteResult majority_vote(std::size_t voters, std::size_t granted, std::size_t refused) noexcept {
  FLOTILLA_ASSERT(voters > 0);
  FLOTILLA_ASSERT(granted + refused <= voters);
  const std::size_t majority = voters / 2 + 1;
  if (granted >= majority) return VoteResult::won;
  return voters - refused < majority ? VoteResult::lost : VoteResult::pending;
}

}  // namespace flotilla::raft
