#include "raft/quorum.hpp"

#include "raft/cluster.hpp"

using namespace flotilla;
using namespace flotilla::raft;
using namespace flotilla::raft::testing;

namespace {

/// Voters 1 ... n and 11 ... 10 + m, the groups disjoint; overlap is tried apart.
Configuration groups(std::uint64_t incoming, std::uint64_t outgoing) {
  Configuration configuration;
  for (std::uint64_t id = 1; id <= incoming; ++id) configuration.members.push_back(voter(id));
  for (std::uint64_t id = 11; id <= 10 + outgoing; ++id) configuration.outgoing.push_back(voter(id));
  return configuration;
}

/// By definition: the largest v such that more than half of the values are at least v.
std::uint64_t reached_by_majority(const std::vector<std::uint64_t>& values) {
  std::uint64_t best = 0;
  for (std::uint64_t candidate : values) {
    std::size_t reached = 0;
    for (std::uint64_t value : values) reached += value >= candidate ? 1u : 0u;
    if (reached * 2 > values.size()) best = std::max(best, candidate);
  }
  return best;
}

VoteResult by_definition(const std::vector<int>& votes) {  // 0 none, 1 yes, 2 no
  std::size_t yes = 0, no = 0;
  for (int vote : votes) {
    yes += vote == 1 ? 1u : 0u;
    no += vote == 2 ? 1u : 0u;
  }
  if (yes * 2 > votes.size()) return VoteResult::won;
  return (votes.size() - no) * 2 > votes.size() ? VoteResult::pending : VoteResult::lost;
}

std::uint64_t power(std::uint64_t base, std::uint64_t exponent) {
  std::uint64_t product = 1;
  while (exponent-- > 0) product *= base;
  return product;
}

std::vector<int> digits(std::uint64_t number, std::uint64_t base, std::uint64_t count) {
  std::vector<int> found;
  for (std::uint64_t i = 0; i < count; ++i, number /= base) found.push_back(static_cast<int>(number % base));
  return found;
}

std::optional<bool> vote(int digit) {
  return digit == 0 ? std::nullopt : std::optional(digit == 1);
}

}  // namespace

TEST_SUITE_BEGIN("raft.quorum");

TEST_CASE("a value is reached by more than half of one to nine voters, for every order of match indexes (A20)") {
  for (std::uint64_t size = 1; size <= 9; ++size) {
    const std::uint64_t levels = size <= 6 ? size + 1 : 4;
    for (std::uint64_t code = 0; code < power(levels, size); ++code) {
      const std::vector<int> drawn = digits(code, levels, size);
      const std::vector<std::uint64_t> values(drawn.begin(), drawn.end());
      const auto value_of = [&](NodeId id) { return values[id.value - 1]; };
      if (quorum_value(groups(size, 0), value_of) != reached_by_majority(values)) FAIL("size ", size, " code ", code);
    }
  }
}

TEST_CASE("votes of one to nine voters are won and lost exactly by majority") {
  for (std::uint64_t size = 1; size <= 9; ++size) {
    for (std::uint64_t code = 0; code < power(3, size); ++code) {
      const std::vector<int> drawn = digits(code, 3, size);
      const auto vote_of = [&](NodeId id) { return vote(drawn[id.value - 1]); };
      if (quorum_vote(groups(size, 0), vote_of) != by_definition(drawn)) FAIL("size ", size, " code ", code);
    }
  }
}

TEST_CASE("joint groups up to five and five decide only together (C13)") {
  for (std::uint64_t in = 1; in <= 5; ++in) {
    for (std::uint64_t out = 1; out <= 5; ++out) {
      for (std::uint64_t code = 0; code < power(3, in + out); ++code) {
        const std::vector<int> drawn = digits(code, 3, in + out);
        const auto place = [&](NodeId id) { return id.value <= 10 ? id.value - 1 : in + id.value - 11; };
        const std::vector<int> left(drawn.begin(), drawn.begin() + static_cast<std::ptrdiff_t>(in));
        const std::vector<int> right(drawn.begin() + static_cast<std::ptrdiff_t>(in), drawn.end());
        const VoteResult a = by_definition(left);
        const VoteResult b = by_definition(right);
        VoteResult expected = VoteResult::pending;
        if (a == VoteResult::won && b == VoteResult::won) expected = VoteResult::won;
        if (a == VoteResult::lost || b == VoteResult::lost) expected = VoteResult::lost;
        const auto vote_of = [&](NodeId id) { return vote(drawn[place(id)]); };
        if (quorum_vote(groups(in, out), vote_of) != expected) FAIL(in, "+", out, " code ", code);
        const auto value_of = [&](NodeId id) { return static_cast<std::uint64_t>(drawn[place(id)]); };
        const std::uint64_t least = std::min(reached_by_majority({left.begin(), left.end()}),
                                             reached_by_majority({right.begin(), right.end()}));
        if (quorum_value(groups(in, out), value_of) != least) FAIL(in, "+", out, " value code ", code);
      }
    }
  }
}

TEST_CASE("learners count in no quorum (D13)") {
  Configuration configuration = groups(3, 0);
  configuration.members.push_back(learner(7));
  configuration.members.push_back(learner(8));
  CHECK(quorum_value(configuration, [](NodeId id) { return id.value >= 7 ? 100u : id.value; }) == 2);
  CHECK(quorum_vote(configuration, [](NodeId id) { return std::optional(id.value >= 7); }) == VoteResult::lost);
}

TEST_CASE("a voter of both groups counts in each") {
  Configuration configuration{{voter(1), voter(2), voter(3)}, {voter(1)}};
  CHECK(quorum_value(configuration, [](NodeId id) { return id == node(1) ? 4u : 9u; }) == 4);
  CHECK(quorum_vote(configuration, [](NodeId id) { return std::optional(id != node(1)); }) == VoteResult::lost);
}

TEST_CASE("without voters nothing is ever decided (D22)") {
  const auto most = [](NodeId) { return std::uint64_t{9}; };
  const auto yes = [](NodeId) { return std::optional(true); };
  CHECK(quorum_value(Configuration{}, most) == 0);
  CHECK(quorum_vote(Configuration{}, yes) == VoteResult::pending);
  CHECK(quorum_value(Configuration{{learner(1)}, {}}, most) == 0);
  CHECK(quorum_vote(Configuration{{learner(1)}, {}}, yes) == VoteResult::pending);
}

TEST_SUITE_END();
