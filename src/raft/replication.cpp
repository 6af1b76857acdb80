// Replication (thesis 3.5) and commitment (3.6), both sides.
#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "raft/state.hpp"

namespace flotilla::raft {

// ---- the leader's log ----

Result<Core::Position> Core::State::propose(EntryType type, SharedBytes payload, std::uint64_t time) {
  if (leading() == nullptr) return fail(Errc::not_leader, "this member does not lead");
  if (leading()->transfer.has_value()) return fail(Errc::proposal_dropped, "leadership is being handed over");
  if (payload.size() > options.payload_bytes_max) return fail(Errc::entry_too_large, "larger than any log takes");
  // One that is alone too large still goes when nothing else waits.
  const std::uint64_t waiting = uncommitted_bytes();
  if (waiting > 0 && waiting + record_header_bytes + payload.size() > options.uncommitted_bytes_max) {
    return fail(Errc::overloaded, "too many bytes wait for a majority");
  }
  const std::uint64_t behind = behind_bytes();
  if (behind > 0 && behind + record_header_bytes + payload.size() > options.unapplied_bytes_max) {
    return fail(Errc::overloaded, "too many bytes wait to be applied here, or for the disk here");
  }
  return Position{term, append(type, std::move(payload), time)};
}

Index Core::State::append(EntryType type, SharedBytes payload, std::uint64_t time) {
  FLOTILLA_ASSERT(leading() != nullptr);
  FLOTILLA_ASSERT(tail.last_term() <= term);
  Entry entry{term, last_index().next(), type, std::max(time, tail.last_time()), 0, std::move(payload)};
  seal(entry);
  tail.append(std::move(entry));
  leading()->flush = true;
  return last_index();
}

std::uint64_t Core::State::uncommitted_bytes() const {
  return tail.bytes(commit_index, last_index());
}

/// What a leader must keep in memory whatever the quorum does: not applied here, or not durable here.
std::uint64_t Core::State::behind_bytes() const {
  const Index done = std::min(applied_index, durability.stable_index());
  return tail.bytes(std::max(done, tail.memory_first_index().previous()), last_index());
}

// ---- the follower ----

bool Core::State::plausible(const Message& envelope, const AppendRequest& request) const {
  // An index without a term is an error, never term 0.
  if (!request.prev_index != !request.prev_term || request.prev_term > envelope.term) return false;
  Index index = request.prev_index;
  Term at_least = std::max(request.prev_term, Term{1});
  for (const Entry& entry : request.entries) {
    if (entry.index != index.next() || entry.term < at_least || entry.term > envelope.term) return false;
    if (entry.payload.size() > options.payload_bytes_max) return false;
    if (entry.type == EntryType::configuration) {
      const std::optional<Configuration> configuration = decode_configuration(entry.payload.view());
      if (!configuration.has_value() || !valid(*configuration)) return false;
    }
    index = entry.index;
    at_least = entry.term;
  }
  return true;
}

void Core::State::handle(const Message& envelope, AppendRequest& request) {
  if (!plausible(envelope, request) || !hear_leader(envelope.from)) return ignore();
  // The log is about to be replaced by a snapshot: the leader asks again.
  if (offer.has_value()) return;
  if (overfull()) request.entries.clear();
  accept(envelope, request);
}

/// Too much waits to be applied here. The leader learns it with every answer.
bool Core::State::overfull() const {
  const Index from = std::max(applied_index, tail.memory_first_index().previous());
  return tail.bytes(from, commit_index) > options.unapplied_bytes_max;
}

void Core::State::accept(const Message& envelope, AppendRequest& request) {
  const Index through = request.prev_index + request.entries.size();
  // What is committed here is as the leader has it, by definition, also where our log no longer reaches back so far.
  if (through <= commit_index) return acknowledge(envelope.from, commit_index);
  FLOTILLA_ASSERT(matched_leader == envelope.from);
  if (request.prev_index < commit_index) {
    const auto known = static_cast<std::size_t>(commit_index - request.prev_index);
    if (tail.term_at(commit_index) != request.entries[known - 1].term) return ignore();
    request.entries.erase(request.entries.begin(), request.entries.begin() + static_cast<std::ptrdiff_t>(known));
  } else if (tail.term_at(request.prev_index) != request.prev_term) {
    if (request.prev_index == commit_index) return ignore();
    return reject(envelope.from, request.prev_index);
  }
  append_new(request.entries);
  FLOTILLA_ASSERT(last_index() >= through);
  matched_index = std::max(matched_index, through);
  // Beyond `through` our log may still differ from the leader's.
  commit_to(std::min(request.commit_index, through));
  acknowledge(envelope.from, through);
}

/// Skips what the log has already, and truncates only where it differs: a late or repeated request must not remove
/// entries that were acknowledged since.
void Core::State::append_new(std::vector<Entry>& entries) {
  auto entry = entries.begin();
  while (entry != entries.end() && tail.term_at(entry->index) == entry->term) ++entry;
  if (entry == entries.end()) return;
  if (entry->index <= last_index()) truncate(entry->index.previous());
  for (; entry != entries.end(); ++entry) {
    const Index index = entry->index;
    std::optional<Configuration> configuration;
    if (entry->type == EntryType::configuration) configuration = decode_configuration(entry->payload.view());
    tail.append(std::move(*entry));
    if (configuration.has_value()) adopt(index, std::move(*configuration));
  }
}

void Core::State::truncate(Index last_kept) {
  FLOTILLA_ASSERT(leading() == nullptr);
  FLOTILLA_ASSERT(last_kept >= commit_index);
  matched_index = std::min(matched_index, last_kept);
  tail.truncate(last_kept);
  durability.truncate(last_kept);
  drop_configurations_after(last_kept);
}

void Core::State::acknowledge(NodeId leader, Index match_index) {
  FLOTILLA_ASSERT(match_index <= last_index());
  AppendReply reply;
  reply.accepted = true;
  reply.match_index = match_index;
  if (overfull()) reply.rejected_index = match_index.next();
  if (match_index <= durability.stable_index()) {
    send(leader, reply);
  } else {
    send_after_sync(leader, reply);
  }
}

void Core::State::reject(NodeId leader, Index prev_index) {
  FLOTILLA_ASSERT(prev_index > commit_index);
  AppendReply reply;
  reply.rejected_index = prev_index;
  reply.last_index = last_index();
  if (prev_index <= last_index()) {
    reply.conflict_term = *tail.term_at(prev_index);
    reply.conflict_index = std::max(tail.first_of_term(prev_index), commit_index.next());
  }
  send(leader, reply);
}

void Core::State::handle(const Message& envelope, const Heartbeat& heartbeat) {
  if (!hear_leader(envelope.from)) return ignore();
  // The leader remembers that our log matches its own up to there; but this disk may have been set back since.
  commit_to(std::min(heartbeat.commit_index, matched_index));
  // After a restart we cannot know: the leader asks again, and what we answer then is true of this run.
  if (heartbeat.commit_index > commit_index && !offer.has_value()) reject(envelope.from, heartbeat.commit_index);
  send(envelope.from, HeartbeatReply{.read_round = heartbeat.read_round});
}

// ---- the leader's view of its followers ----

Progress* Core::State::peer(NodeId id) {
  return const_cast<Progress*>(std::as_const(*this).peer(id));
}

const Progress* Core::State::peer(NodeId id) const {
  if (leading() == nullptr) return nullptr;
  const auto& peers = leading()->peers;
  const auto at = std::find_if(peers.begin(), peers.end(), [id](const Progress& peer) { return peer.id() == id; });
  return at == peers.end() ? nullptr : &*at;
}

void Core::State::handle(const Message& envelope, const AppendReply& reply) {
  Progress* from = peer(envelope.from);
  if (from == nullptr) return ignore();
  from->silent_ticks = 0;
  if (reply.accepted) {
    peer_accepted(*from, reply.match_index);
    // It has no room for more: no entries until it takes a probe, one with each heartbeat.
    if (Progress* full = reply.rejected_index ? peer(envelope.from) : nullptr) full->probe_again();
    return;
  }
  if (reply.rejected_index <= from->match_index() || reply.last_index < from->match_index()) {
    return doubt(*from, reply);
  }
  if (from->rejected(reply.rejected_index, back_off(reply))) leading()->flush = true;
}

/// Whether a rejection of what is known to match, or by a log that ends below, takes back what this follower
/// acknowledged to us in this term.
bool Core::State::contradicts(const Progress& peer, const AppendReply& reply) const {
  if (reply.last_index < peer.match_index()) return true;
  FLOTILLA_ASSERT(reply.rejected_index <= peer.match_index());
  if (!reply.conflict_term) return false;
  const std::optional<Term> ours = tail.term_at(reply.rejected_index);
  return ours.has_value() && *ours != reply.conflict_term;
}

/// It may be a late answer, one who restarted and does not know where it stands, or one whose disk was set back. An
/// append that ends where it is known to match tells them apart: a sound follower can only accept that one.
void Core::State::doubt(Progress& peer, const AppendReply& reply) {
  FLOTILLA_ASSERT(!reply.accepted);
  if (!peer.match_index()) return;
  // Whose answer we doubt already is asked at each heartbeat: a rejection is never answered at once twice.
  if (peer.rolled_back) return;
  peer.rolled_back = contradicts(peer, reply);
  ask_to_confirm(peer);
}

void Core::State::ask_to_confirm(Progress& peer) {
  if (peer.mode() == ProgressMode::snapshot) return;
  const std::optional<Term> match_term = tail.term_at(peer.match_index());
  // So far back that a snapshot is due anyway.
  if (!match_term.has_value()) return need_snapshot(peer);
  FLOTILLA_ASSERT(peer.match_index());
  send(peer.id(), AppendRequest{peer.match_index(), *match_term, commit_index, {}});
}

/// Where the logs may meet: strictly lower with every rejection, and one term of ours at a time at the least.
Index Core::State::back_off(const AppendReply& reply) const {
  if (!reply.conflict_term) return reply.last_index.next();
  FLOTILLA_ASSERT(reply.rejected_index);
  const std::optional<Index> last = tail.last_not_above(reply.conflict_term, reply.rejected_index.previous());
  if (!last.has_value()) return reply.conflict_index;
  // Its entries from conflict_index on are of conflict_term: they can only match ours of that term.
  if (*last < reply.conflict_index || tail.term_at(*last) == reply.conflict_term) return last->next();
  return reply.conflict_index;
}

void Core::State::peer_accepted(Progress& from, Index match_index) {
  if (match_index > last_index()) return ignore();
  const NodeId id = from.id();
  const bool confirmed = from.rolled_back && match_index >= from.match_index();
  if (confirmed) from.rolled_back = false;
  const bool news = from.accepted(match_index) || confirmed;
  if (from.mode() == ProgressMode::snapshot && from.match_index().next() >= first_index) {
    from.leave_snapshot();
    from.accepted(from.match_index());
  }
  leading()->flush = true;
  if (news) advance_commit();
  // That may have ended our leadership.
  if (const Progress* still = peer(id)) continue_transfer(*still);
}

void Core::State::handle(const Message& envelope, const HeartbeatReply& reply) {
  Progress* from = peer(envelope.from);
  if (from == nullptr || reply.read_round > leading()->read_round) return ignore();
  from->silent_ticks = 0;
  from->read_round = std::max(from->read_round, reply.read_round);
  if (from->rolled_back) return ask_to_confirm(*from);
  // It lives, and what we probed with, or the answer, may be lost: ask again, without the entries.
  if (from->mode() == ProgressMode::probe && from->paused()) send_append(*from, false);
  confirm_reads();
}

// ---- commitment ----

void Core::State::commit_to(Index index) {
  if (index <= commit_index) return;
  FLOTILLA_ASSERT(index <= last_index());
  commit_index = index;
  drop_old_configurations();
}

void Core::State::advance_commit() {
  FLOTILLA_ASSERT(leading() != nullptr);
  const auto match_of = [this](NodeId id) {
    if (id == options.id) return durability.stable_index().value;
    const Progress* member = peer(id);
    FLOTILLA_ASSERT(member != nullptr);
    return member->rolled_back ? 0 : member->match_index().value;
  };
  const Index reached{quorum_value(configuration(), match_of)};
  // Entries of earlier terms are committed only by one of our own above them (thesis 3.6.2).
  if (reached <= commit_index || tail.term_at(reached) != term) return;
  commit_to(reached);
  leading()->flush = true;
  follow_configuration();
}

// ---- sending ----

void Core::State::flush() {
  FLOTILLA_ASSERT(leading() != nullptr);
  leading()->flush = false;
  for (Progress& to : leading()->peers) replicate(to);
}

void Core::State::replicate(Progress& to) {
  if (to.mode() == ProgressMode::snapshot || to.rolled_back) return;
  while (to.next_index() <= last_index() && to.may_append(window())) {
    if (!send_append(to, true)) return;
  }
  // A probe without entries asks where the logs meet. The end of the log is always in memory.
  if (to.mode() == ProgressMode::probe && !to.paused()) send_append(to, false);
  announce_commit(to);
}

/// With nothing else to send, a new commit index goes at once: who waits on the follower for its command must not wait
/// for a timer.
void Core::State::announce_commit(Progress& to) {
  if (std::min(commit_index, to.match_index()) > to.commit_sent) send_heartbeat(to);
}

/// False: the entries, or the term before them, must be read from the disk first, or are gone.
bool Core::State::send_append(Progress& to, bool with_entries) {
  const Index next = to.next_index();
  const std::optional<Term> prev_term = tail.term_at(next.previous());
  FLOTILLA_ASSERT(!with_entries || next <= last_index());
  if (!prev_term.has_value() || (with_entries && !tail.in_memory(next))) {
    read_log_for(to);
    return false;
  }
  std::vector<Entry> entries;
  if (with_entries) entries = tail.slice(next, last_index(), options.append_bytes_max);
  send_entries(to, *prev_term, std::move(entries));
  return true;
}

void Core::State::send_entries(Progress& to, Term prev_term, std::vector<Entry> entries) {
  const Index prev = to.next_index().previous();
  const Index through = prev + entries.size();
  FLOTILLA_ASSERT(!prev == !prev_term);
  FLOTILLA_ASSERT(through <= last_index());
  std::size_t bytes = 0;
  for (const Entry& entry : entries) bytes += record_bytes(entry);
  send(to.id(), AppendRequest{prev, prev_term, commit_index, std::move(entries)});
  to.commit_sent = std::max(to.commit_sent, std::min(commit_index, through));
  to.appended(through, bytes);
}

void Core::State::read_log_for(Progress& to) {
  if (to.mode() == ProgressMode::probe) to.pause();
  if (std::find(log_reads_out.begin(), log_reads_out.end(), to.id()) != log_reads_out.end()) return;
  if (to.next_index() < first_index) return need_snapshot(to);
  log_reads_out.push_back(to.id());
  log_reads.push_back(LogRead{to.id(), to.next_index(), options.append_bytes_max});
}

void Core::State::loaded(NodeId peer_id, Index first, Term prev_term, std::vector<Entry> entries) {
  std::erase(log_reads_out, peer_id);
  Progress* to = peer(peer_id);
  if (to == nullptr) return;
  leading()->flush = true;
  if (to->mode() == ProgressMode::snapshot || to->next_index() != first) return to->resume();
  // On disk an older version of what is still being written may follow: only entries of our log are sent.
  Index index = first;
  const auto foreign = [&](const Entry& entry) {
    const bool fits =
        entry.index == index && index <= last_index() && tail.term_at(index).value_or(entry.term) == entry.term;
    ++index;
    return !fits;
  };
  entries.erase(std::find_if(entries.begin(), entries.end(), foreign), entries.end());
  const bool prev_known =
      !first.previous() == !prev_term && tail.term_at(first.previous()).value_or(prev_term) == prev_term;
  if (entries.empty() || !prev_known) return need_snapshot(*to);
  send_entries(*to, prev_term, std::move(entries));
}

void Core::State::send_heartbeat(Progress& to) {
  const Index known = std::min(commit_index, to.match_index());
  to.commit_sent = std::max(to.commit_sent, known);
  send(to.id(), Heartbeat{.commit_index = known, .read_round = leading()->read_round});
}

void Core::State::broadcast_heartbeat() {
  FLOTILLA_ASSERT(leading() != nullptr);
  leading()->heartbeat_ticks = 0;
  for (Progress& to : leading()->peers) send_heartbeat(to);
}

// ---- the leader's time ----

void Core::State::tick_leader() {
  FLOTILLA_ASSERT(leading() != nullptr);
  for (Progress& to : leading()->peers) tick_peer(to);
  forget_removed();
  if (quorum_is_silent() || storage_stalls()) return become_follower(term, NodeId{});
  tick_transfer();
  if (leading() == nullptr) return;
  leading()->commit_before_tick = commit_index;
  if (++leading()->heartbeat_ticks >= options.heartbeat_ticks) broadcast_heartbeat();
}

/// Watches that the follower's log gets on, not only that it speaks.
void Core::State::tick_peer(Progress& to) {
  ++to.silent_ticks;
  if (to.snapshot_retry_ticks > 0) --to.snapshot_retry_ticks;
  const bool outstanding = to.mode() == ProgressMode::snapshot || to.match_index().next() < to.next_index();
  to.stalled_ticks = outstanding ? to.stalled_ticks + 1 : 0;
  if (to.stalled_ticks < options.election_ticks) return;
  if (to.mode() == ProgressMode::replicate) to.probe_again();
  if (to.mode() == ProgressMode::snapshot && to.snapshot.has_value()) announce_snapshot(to);
}

bool Core::State::quorum_is_silent() const {
  const auto heard = [this](NodeId id) -> std::optional<bool> {
    if (id == options.id) return true;
    const Progress* member = peer(id);
    FLOTILLA_ASSERT(member != nullptr);
    return member->silent_ticks < options.election_ticks;
  };
  return quorum_vote(configuration(), heard) != VoteResult::won;
}

/// Nobody else is needed for a decision, so nobody else could lead.
bool Core::State::quorum_alone() const {
  const auto self_only = [this](NodeId id) -> std::optional<bool> { return id == options.id; };
  return quorum_vote(configuration(), self_only) == VoteResult::won;
}

/// The own disk completes nothing although it has something to complete.
bool Core::State::storage_stalls() {
  const bool waiting = last_index() > durability.stable_index() && !quorum_alone();
  leading()->stall_ticks = waiting ? leading()->stall_ticks + 1 : 0;
  return leading()->stall_ticks >= options.storage_stall_ticks;
}

void Core::State::unreachable(NodeId peer_id) {
  if (Progress* to = peer(peer_id)) to->probe_again();
  if (leading() == nullptr && leader_id == peer_id) fail_forwarded_reads(NodeId{});
}

}  // namespace flotilla::raft
