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
  if (!transfer.has_value() || transfer->to != to.id() || transfer->ordered) return;
  // One that was set back gets no entries, so it is not level before it has proved the contrary.
  if (to.match_index() != last_index()) return;
  FLOTILLA_ASSERT(!to.rolled_back);
  transfer->ordered = true;
  send(to.id(), TimeoutNow{});
}

/// Bounded: after an election timeout without a successor this leader goes on.
void Core::State::tick_transfer() {
  std::optional<Transfer>& transfer = leading()->transfer;
  if (!transfer.has_value()) return;
  if (++transfer->ticks >= options.election_ticks) transfer.reset();
}

/// This leader is no voter any more, and that is committed: the one that is furthest takes over at once.
void Core::State::hand_over_and_step_down() {
  FLOTILLA_ASSERT(leading() != nullptr);
  FLOTILLA_ASSERT(configuration_index() <= commit_index);
  // First the news of the commit, which they may only get from us.
  flush();
  const Progress* best = nullptr;
  for (const Progress& member : leading()->peers) {
    if (!configuration().is_voter(member.id()) || member.rolled_back) continue;
    if (best == nullptr || member.match_index() > best->match_index()) best = &member;
  }
  if (best != nullptr) send(best->id(), TimeoutNow{});
  become_follower(term, NodeId{});
}

/// From the leader alone. Whether this member may stand is for itself to say: it may have been removed since.
void Core::State::handle(const Message& envelope, const TimeoutNow&) {
  if (!hear_leader(envelope.from) || !may_stand()) return ignore();
  campaign_in_earnest(true);
}

}  // namespace flotilla::raft
