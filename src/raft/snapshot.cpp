// What a follower lacks that the log no longer has (thesis 5). The state itself travels outside of the core: it is
// brought over, then announced, then installed, and each step may fail and be begun again.
#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "raft/state.hpp"

namespace flotilla::raft {

// ---- the leader ----

void Core::State::need_snapshot(Progress& to) {
  // After a failure not at once again; each sign of life of the follower comes here until the wait is over.
  if (to.snapshot_retry_ticks > 0) return to.probe_again();
  to.enter_snapshot();
  FLOTILLA_ASSERT(to.mode() == ProgressMode::snapshot);
  snapshot_sends.push_back(SnapshotSend{to.id()});
}

void Core::State::snapshot_sent(NodeId peer_id, const SnapshotMeta& meta) {
  FLOTILLA_ASSERT(meta.index && meta.term);
  FLOTILLA_ASSERT(meta.configuration_index <= meta.index);
  Progress* to = peer(peer_id);
  // Of an earlier leadership, or of a member that caught up or was removed meanwhile.
  if (to == nullptr || to->mode() != ProgressMode::snapshot) return;
  // The log was trimmed past it: it would be in vain.
  if (meta.index.next() < first_index || meta.index > commit_index) return snapshot_failed(peer_id);
  to->snapshot = meta;
  announce_snapshot(*to);
}

void Core::State::announce_snapshot(Progress& to) {
  FLOTILLA_ASSERT(to.snapshot.has_value());
  to.stalled_ticks = 0;
  send(to.id(), SnapshotRequest{to.snapshot->index, to.snapshot->term, to.snapshot->configuration});
}

void Core::State::snapshot_failed(NodeId peer_id) {
  Progress* to = peer(peer_id);
  if (to == nullptr || to->mode() != ProgressMode::snapshot) return;
  to->leave_snapshot();
  to->snapshot_retry_ticks = options.election_ticks;
}

void Core::State::handle(const Message& envelope, const SnapshotReply& reply) {
  Progress* from = peer(envelope.from);
  if (from == nullptr) return ignore();
  from->silent_ticks = 0;
  if (!reply.accepted) return snapshot_failed(envelope.from);
  peer_accepted(*from, reply.match_index);
  // It has what it was sent, and that is not enough any more.
  Progress* still = peer(envelope.from);
  if (still != nullptr && still->mode() == ProgressMode::snapshot) snapshot_failed(envelope.from);
}

void Core::State::trimmed(Index index) {
  FLOTILLA_ASSERT(index);
  FLOTILLA_ASSERT(index <= applied_index.next());
  first_index = std::max(first_index, index);
  // The term before the oldest entry is still needed to send that entry.
  tail.forget_terms(first_index.previous());
}

// ---- the follower ----

void Core::State::handle(const Message& envelope, const SnapshotRequest& request) {
  const bool possible = request.index && request.index_term && request.index_term <= envelope.term;
  if (!possible || !valid(request.configuration) || !hear_leader(envelope.from)) return ignore();
  // One at a time; the leader announces again.
  if (offer.has_value()) return;
  const bool in_log = tail.term_at(request.index) == request.index_term;
  if (request.index > commit_index && !in_log) {
    offer = SnapshotOffer{envelope.from, request.index, request.index_term, request.configuration};
    offer_dirty = true;
    return;
  }
  // All of it is here already: only the knowledge that it is committed may be news.
  commit_to(request.index);
  send_after_sync(envelope.from, SnapshotReply{.accepted = true, .match_index = request.index});
}

/// What it says comes from a peer's file, so nothing of it is taken for granted.
bool Core::State::possible(const SnapshotMeta& meta) const {
  if (!meta.index || meta.index.value > number_max) return false;
  if (!meta.term || !reachable(meta.term)) return false;
  if (meta.configuration_index > meta.index || !valid(meta.configuration)) return false;
  // Terms never fall along the log.
  return meta.index <= commit_index || meta.term >= tail.term_at(commit_index).value_or(Term{});
}

void Core::State::snapshot_installed(const SnapshotMeta& meta) {
  FLOTILLA_ASSERT(leading() == nullptr);
  if (!possible(meta)) {
    ignore();
    return snapshot_refused();
  }
  // It may be newer than the offer: of a leader that we have not heard of yet.
  if (meta.term > term) become_follower(meta.term, NodeId{});
  FLOTILLA_ASSERT(meta.term <= term);
  offer.reset();
  offer_dirty = false;
  // Never back in time.
  if (meta.index > commit_index) {
    if (tail.term_at(meta.index) == meta.term) {
      commit_to(meta.index);
    } else {
      begin_log_after(meta);
    }
    delivered_index = std::max(delivered_index, meta.index);
    applied_index = std::max(applied_index, meta.index);
  }
  if (leader_id) send_after_sync(leader_id, SnapshotReply{.accepted = true, .match_index = meta.index});
}

void Core::State::begin_log_after(const SnapshotMeta& meta) {
  FLOTILLA_ASSERT(meta.configuration_index <= meta.index);
  tail.reset(meta.index, meta.term, meta.time);
  durability.reset(meta.index);
  matched_index = std::min(matched_index, meta.index);
  configurations.assign(1, ConfigurationAt{meta.configuration_index, meta.configuration});
  configuration_dirty = true;
  commit_index = meta.index;
  first_index = meta.index.next();
  log_restart = meta;
  if (std::holds_alternative<Candidate>(role_state)) become_follower(term, NodeId{});
  FLOTILLA_ASSERT(last_index() == meta.index);
}

void Core::State::snapshot_refused() {
  if (!offer.has_value()) return;
  offer.reset();
  offer_dirty = false;
  if (leader_id) send(leader_id, SnapshotReply{.accepted = false, .match_index = {}});
}

}  // namespace flotilla::raft
