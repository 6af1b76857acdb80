// Transfer of leadership (thesis 3.10).
#include "base/assert.hpp"
#include "raft/state.hpp"

namespace flotilla::raft {

Result<void> Core::State::transfer_leadership(NodeId to) {
  if (leading() == nullptr) return fail(Errc::not_leader, "this member does not lead");
  const Member* member = configuration().find(to);
  const Progress* target = peer(to);
  if (member == nullptr || !member->voter || target == nullptr) {
    return fail(Errc::invalid_argument, "only another voter can take over leadership");
  }
  if (target->rolled_back) return fail(Errc::invalid_argument, "its disk was set back: it must be replaced");
  std::optional<Transfer>& transfer = leading()->transfer;
  if (transfer.has_value() && transfer->to != to) return fail(Errc::overloaded, "a transfer to another is under way");
  if (!transfer.has_value()) transfer = Transfer{to, 0, false};
  continue_transfer(*target);
  return {};
}

/// The order goes once the target has the whole log: then nobody's is longer.
void Core::State::continue_transfer(const Progress& to) {
  FLOTILLA_ASSERT(leading() != nullptr);
  std::optional<Transfer>& transfer = leading()->transfer;
  if (!transfer.has_value() || transfer->ordered) return;
  const bool wanted = transfer->to ? transfer->to == to.id() : configuration().is_voter(to.id());
  // One that was set back gets no entries, so it is not level before it has proved the contrary.
  if (!wanted || to.match_index() != last_index()) return;
  FLOTILLA_ASSERT(!to.rolled_back);
  transfer->ordered = true;
  if (!must_leave()) return send(to.id(), TimeoutNow{});
  flush();  // the news of the commit, which they may only get from us
  send(to.id(), TimeoutNow{});
  become_follower(term, NodeId{});
}

/// Bounded: after an election timeout without a successor this leader goes on, if it may.
void Core::State::tick_transfer() {
  std::optional<Transfer>& transfer = leading()->transfer;
  if (!transfer.has_value()) return;
  if (++transfer->ticks < options.election_ticks) return;
  if (must_leave()) return become_follower(term, NodeId{});
  transfer.reset();
}

/// It leads, and is no voter any more, and that is committed.
bool Core::State::must_leave() const {
  return configuration_index() <= commit_index && !configuration().joint() && !configuration().is_voter(options.id);
}

/// The first voter that has the whole log takes over. Proposals are refused until then: another could have an entry
/// more than the one that is ordered to stand, and would deny it the vote.
void Core::State::hand_over_and_step_down() {
  FLOTILLA_ASSERT(must_leave());
  std::optional<Transfer>& transfer = leading()->transfer;
  if (transfer.has_value() && transfer->ordered) {  // to somebody before: another order would only split the votes
    flush();
    return become_follower(term, NodeId{});
  }
  transfer = Transfer{};
  // The order ends the leadership, and the list with it.
  for (std::size_t i = 0; leading() != nullptr && i < leading()->peers.size(); ++i) {
    continue_transfer(leading()->peers[i]);
  }
}

/// From the leader alone. Whether this member may stand is for itself to say: it may have been removed since.
void Core::State::handle(const Message& envelope, const TimeoutNow&) {
  if (!hear_leader(envelope.from) || !may_stand()) return ignore();
  campaign_in_earnest(true);
}

}  // namespace flotilla::raft
