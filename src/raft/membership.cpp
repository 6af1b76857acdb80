// Changes of members (thesis 4): configurations are in force as soon as they are in the log.
#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "raft/state.hpp"

namespace flotilla::raft {
namespace {

bool is_voter_among(const std::vector<Member>& members, NodeId id) {
  return std::any_of(members.begin(), members.end(),
                     [id](const Member& member) { return member.id == id && member.voter; });
}

/// Voters that are in only one of the two.
std::size_t voters_changed(const std::vector<Member>& from, const std::vector<Member>& to) {
  const auto missing_in = [](const std::vector<Member>& others) {
    return [&others](const Member& member) { return member.voter && !is_voter_among(others, member.id); };
  };
  const auto gone = std::count_if(from.begin(), from.end(), missing_in(to));
  const auto come = std::count_if(to.begin(), to.end(), missing_in(from));
  return static_cast<std::size_t>(gone + come);
}

std::vector<Member> voters_of(const std::vector<Member>& members) {
  std::vector<Member> voters;
  std::copy_if(members.begin(), members.end(), std::back_inserter(voters),
               [](const Member& member) { return member.voter; });
  return voters;
}

}  // namespace

Result<Core::Position> Core::State::propose_configuration(Configuration wanted, std::uint64_t time) {
  if (std::optional<Error> error = refuse_change(wanted)) return fail(std::move(*error));
  // With one voter more or less every majority of the one meets every majority of the other (thesis 4.1).
  if (voters_changed(configuration().members, wanted.members) > 1) {
    wanted.outgoing = voters_of(configuration().members);
  }
  FLOTILLA_ASSERT(valid(wanted));
  return Position{term, append_configuration(std::move(wanted), time)};
}

std::optional<Error> Core::State::refuse_change(const Configuration& wanted) const {
  if (leading() == nullptr) return Error(Errc::not_leader, "this member does not lead");
  if (leading()->transfer.has_value()) return Error(Errc::proposal_dropped, "leadership is being handed over");
  if (wanted.joint() || !valid(wanted)) return Error(Errc::invalid_argument, "the configuration is not valid");
  if (wanted.members == configuration().members) return Error(Errc::invalid_argument, "nothing would change");
  // Otherwise two leaders could each commit a change of their own by disjoint majorities (Ongaro, July 2015).
  if (!own_term_committed()) return Error(Errc::overloaded, "this leader has not committed anything yet");
  if (configuration().joint() || configuration_index() > commit_index) {
    return Error(Errc::overloaded, "another change of members is under way");
  }
  if (!would_have_quorum(wanted))
    return Error(Errc::overloaded, "no majority of the wanted voters was heard from lately");
  return std::nullopt;
}

/// A change that leaves no live majority could never be undone.
bool Core::State::would_have_quorum(const Configuration& wanted) const {
  const auto heard = [this](NodeId id) -> std::optional<bool> {
    const Progress* member = peer(id);
    return id == options.id ||
           (member != nullptr && !member->rolled_back && member->silent_ticks < options.election_ticks);
  };
  return quorum_vote(wanted, heard) == VoteResult::won;
}

Index Core::State::append_configuration(Configuration configuration, std::uint64_t time) {
  FLOTILLA_ASSERT(configuration_index() <= commit_index);
  const Index index = append(EntryType::configuration, SharedBytes(encode(configuration)), time);
  adopt(index, std::move(configuration));
  // The quorum may have become smaller.
  advance_commit();
  return index;
}

void Core::State::adopt(Index index, Configuration configuration) {
  FLOTILLA_ASSERT(index > configuration_index());
  FLOTILLA_ASSERT(valid(configuration));
  configurations.push_back({index, std::move(configuration)});
  configuration_dirty = true;
  if (leading() != nullptr) follow_members();
}

/// A leader follows the progress of exactly the members, and for a while of those it must tell that they are none.
void Core::State::follow_members() {
  std::vector<Progress>& peers = leading()->peers;
  for (NodeId id : configuration().ids()) {
    if (id == options.id || peer(id) != nullptr) continue;
    peers.emplace_back(id, last_index());
  }
  for (Progress& member : peers) {
    const bool leaving = !configuration().contains(member.id());
    if (leaving && !member.leaving) member.leaving_ticks = 0;
    member.leaving = leaving;
  }
  std::sort(peers.begin(), peers.end(),
            [](const Progress& left, const Progress& right) { return left.id() < right.id(); });
}

void Core::State::drop_configurations_after(Index last_kept) {
  while (configuration_index() > last_kept) {
    FLOTILLA_ASSERT(configurations.size() > 1);
    configurations.pop_back();
    configuration_dirty = true;
  }
}

void Core::State::drop_old_configurations() {
  const auto above = std::find_if(configurations.begin(), configurations.end(),
                                  [this](const ConfigurationAt& at) { return at.index > commit_index; });
  FLOTILLA_ASSERT(above != configurations.begin());
  configurations.erase(configurations.begin(), std::prev(above));
  FLOTILLA_ASSERT(!configurations.empty());
}

/// What a committed configuration asks of the leader.
void Core::State::follow_configuration() {
  FLOTILLA_ASSERT(leading() != nullptr);
  if (configuration_index() > commit_index) return;
  if (configuration().joint()) return leave_joint();
  if (must_leave()) hand_over_and_step_down();
}

/// Exactly once: as soon as it is appended, the configuration in force is not joint any more.
void Core::State::leave_joint() {
  FLOTILLA_ASSERT(configuration().joint());
  append_configuration(Configuration{configuration().members, {}}, tail.last_time());
}

void Core::State::forget_removed() {
  if (configuration_index() > commit_index) return;
  const unsigned patience = 3 * options.election_ticks;
  std::erase_if(leading()->peers, [&](Progress& member) {
    if (!member.leaving) return false;
    const bool told = member.match_index() >= configuration_index() && member.commit_sent >= configuration_index();
    return told || ++member.leaving_ticks > patience;
  });
}

}  // namespace flotilla::raft
