// Elections: pre-vote (thesis 9.6), votes (3.4), and a leader's first act.
#include <algorithm>

#include "base/assert.hpp"
#include "raft/state.hpp"

namespace flotilla::raft {

std::optional<bool> Candidate::vote_of(NodeId id) const {
  const auto at = std::find_if(votes.begin(), votes.end(), [id](const auto& vote) { return vote.first == id; });
  if (at == votes.end()) return std::nullopt;
  return at->second;
}

void Candidate::record(NodeId id, bool granted) {
  if (!vote_of(id).has_value()) votes.emplace_back(id, granted);
}

void Core::State::reset_election_timer() {
  election_ticks = 0;
  election_timeout = options.election_ticks + static_cast<unsigned>(random.below(options.election_ticks));
  FLOTILLA_ASSERT(election_timeout >= options.election_ticks);
  FLOTILLA_ASSERT(election_timeout < 2 * options.election_ticks);
}

void Core::State::tick_election() {
  FLOTILLA_ASSERT(leading() == nullptr);
  if (++election_ticks < election_timeout) return;
  if (own_vote_waits()) {
    reset_election_timer();
  } else if (may_stand()) {
    campaign_pre_vote();
  } else {
    become_follower(term, NodeId{});
  }
}

/// A voter of the configuration in force; also one that a configuration removes which is not committed: it may be the
/// only one that has this configuration, and then nobody else can be elected.
bool Core::State::may_stand() const {
  if (offer.has_value()) return false;
  const NodeId self = options.id;
  return std::any_of(configurations.begin(), configurations.end(),
                     [self](const ConfigurationAt& at) { return at.configuration.is_voter(self); });
}

/// A leader is alive as far as this member knows.
bool Core::State::sticky() const {
  return leading() != nullptr || (leader_id && election_ticks < options.election_ticks);
}

void Core::State::campaign() {
  if (leading() == nullptr && may_stand()) campaign_pre_vote();
}

void Core::State::campaign_pre_vote() {
  FLOTILLA_ASSERT(may_stand());
  become_follower(term, NodeId{});
  Candidate candidate;
  candidate.pre = true;
  candidate.record(options.id, true);
  role_state = std::move(candidate);
  ask_for_votes(true, false);
  count_votes();
}

void Core::State::campaign_in_earnest(bool ordered_by_leader) {
  FLOTILLA_ASSERT(may_stand());
  FLOTILLA_ASSERT(leading() == nullptr);
  become_follower(term.next(), NodeId{});
  voted_for = options.id;
  Candidate candidate;
  candidate.pre = false;
  candidate.vote_sequence = durability.taken() + 1;
  role_state = std::move(candidate);
  ask_for_votes(false, ordered_by_leader);
}

/// The requests wait until this member's term, vote and whole log are durable: a member that crashes must not come back
/// able to win the same term again, and must not be elected on entries that it can still lose.
void Core::State::ask_for_votes(bool pre, bool ordered_by_leader) {
  const VoteRequest request{
      .pre = pre, .transfer = ordered_by_leader, .last_index = last_index(), .last_term = tail.last_term()};
  const Term asked = pre ? term.next() : term;
  for (NodeId id : configuration().ids()) {
    if (id == options.id || !configuration().is_voter(id)) continue;
    gated.push_back(Message{options.id, id, asked, request});
  }
}

/// The disk stands still: another term would change nothing but its number.
bool Core::State::own_vote_waits() const {
  const auto* candidate = std::get_if<Candidate>(&role_state);
  return candidate != nullptr && !candidate->pre && durability.persisted() < candidate->vote_sequence;
}

void Core::State::own_vote_durable() {
  auto* candidate = std::get_if<Candidate>(&role_state);
  if (candidate == nullptr || candidate->pre) return;
  if (durability.persisted() < candidate->vote_sequence) return;
  FLOTILLA_ASSERT(voted_for == options.id);
  candidate->record(options.id, true);
  count_votes();
}

void Core::State::count_votes() {
  const auto* candidate = std::get_if<Candidate>(&role_state);
  FLOTILLA_ASSERT(candidate != nullptr);
  const auto vote_of = [candidate](NodeId id) { return candidate->vote_of(id); };
  switch (quorum_vote(configuration(), vote_of)) {
    case VoteResult::pending: return;
    case VoteResult::won: return candidate->pre ? campaign_in_earnest(false) : become_leader();
    case VoteResult::lost: return become_follower(term, NodeId{});
  }
}

/// O(members): the first append must leave before anybody's patience ends, however long the log.
void Core::State::become_leader() {
  FLOTILLA_ASSERT(voted_for == options.id);
  FLOTILLA_ASSERT(tail.last_term() < term);
  Leader leader;
  leader.term_start = last_index().next();
  leader.commit_before_tick = commit_index;
  for (NodeId id : configuration().ids()) {
    if (id != options.id) leader.peers.emplace_back(id, last_index().next());
  }
  role_state = std::move(leader);
  leader_id = options.id;
  append(EntryType::noop, SharedBytes{}, tail.last_time());
}

void Core::State::handle(const Message& envelope, const VoteRequest& request) {
  if (request.pre) return handle_pre_vote(envelope, request);
  FLOTILLA_ASSERT(envelope.term == term);
  const bool free_to_vote = voted_for == envelope.from || (!voted_for && !leader_id);
  if (!free_to_vote || !is_up_to_date(request.last_index, request.last_term)) {
    send(envelope.from, VoteReply{.pre = false, .granted = false});
    return;
  }
  if (voted_for != envelope.from) {
    voted_for = envelope.from;
    hard_state_dirty = true;
    reset_election_timer();
  }
  send_after_sync(envelope.from, VoteReply{.pre = false, .granted = true});
}

/// Changes nothing here, and yet waits for the disk: who could not make the vote durable must not have others go from
/// term to term for it. Any member answers, voter or not: the asker's configuration may be newer than ours.
void Core::State::handle_pre_vote(const Message& envelope, const VoteRequest& request) {
  const bool granted = envelope.term > term && !sticky() && is_up_to_date(request.last_index, request.last_term);
  const Term answered = granted ? envelope.term : term;
  // Before the first term nothing is refused: no leader is known, and no log is longer.
  FLOTILLA_ASSERT(answered);
  gated.push_back(Message{options.id, envelope.from, answered, VoteReply{.pre = true, .granted = granted}});
}

void Core::State::handle(const Message& envelope, const VoteReply& reply) {
  auto* candidate = std::get_if<Candidate>(&role_state);
  const Term expected = reply.pre && reply.granted ? term.next() : term;
  if (candidate == nullptr || candidate->pre != reply.pre || envelope.term != expected) return ignore();
  if (!configuration().is_voter(envelope.from)) return ignore();
  candidate->record(envelope.from, reply.granted);
  count_votes();
}

/// Whether a log that ends so is at least as up to date as ours (paper 5.4.1).
bool Core::State::is_up_to_date(Index index, Term index_term) const {
  if (index_term != tail.last_term()) return index_term > tail.last_term();
  return index >= last_index();
}

}  // namespace flotilla::raft
