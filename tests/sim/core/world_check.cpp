// The invariants of CORRECTNESS 2.3, after every step; and the healed phase with its bounds.
#include <algorithm>

#include <fmt/format.h>

#include "raft/quorum.hpp"
#include "world.hpp"

namespace flotilla::sim {
namespace {

template <class T>
const T* body_of(const raft::Message& message) {
  return std::get_if<T>(&message.body);
}

}  // namespace

std::uint64_t World::chain_of(const ChainedLog& log, Index index) const {
  if (const auto chain = log.chain_at(index)) return *chain;
  // Below its base a log holds what is committed.
  if (index < log.base()) return oracle_.chain(index);
  return ~std::uint64_t{0};
}

bool World::durably_has(Node& at, Index index, std::uint64_t chain) {
  if (index <= at.disk.checkpoint.index) return oracle_.chain(index) == chain;
  return chain_of(at.disk.log, index) == chain;
}

void World::check(Node& at) {
  const raft::Facts now = at.core->facts();
  if (const char* name = at.core->broken()) broken(name, fmt::format("node {}", at.id.value));
  if (const char* name = raft::broken(at.before, now)) broken(name, fmt::format("node {}", at.id.value));
  if (now.last_index != at.log.last()) broken("Ready hands out every entry", "");
  const bool led = at.before.role == Role::leader;
  if (now.role == Role::leader) check_leader(at, now);
  if (led && now.role != Role::leader) {
    counters_.add(What::leaders_deposed);
    const bool same_term = now.term == at.before.term;
    if (same_term && at.hung_until > now_) counters_.add(What::storage_stall_step_downs);
    if (same_term && !at.core->configuration().is_voter(at.id)) counters_.add(What::leaders_removed);
    note("leads no more", at);
  }
  if (now.commit_index > oracle_.highest_commit) check_commit(at, now);
  at.before = now;
  at.configuration_before = at.core->configuration();
}

void World::check_leader(Node& at, const raft::Facts& now) {
  if (oracle_.leads(at.id, now.term)) check_new_leader(at, now);
  check_matches(at);
  if (!at.core->configuration().joint() && at.core->configuration_index() <= now.commit_index) return;
  // config changes in flight
  unsigned in_flight = 0;
  for (Index index = std::max(now.commit_index, at.log.base()).next(); index <= at.log.last(); ++index) {
    in_flight += at.log.at(index).entry.type == raft::EntryType::configuration ? 1u : 0u;
  }
  if (in_flight > 1) broken("one-change-in-flight", fmt::format("node {}", at.id.value));
  const Index change = at.core->configuration_index();
  const bool own = at.log.has(change) && at.log.at(change).entry.term == now.term;
  if (own && now.commit_index < now.term_start)
    broken("no-change-before-own-commit", fmt::format("node {}", at.id.value));
}

void World::check_new_leader(Node& at, const raft::Facts& now) {
  counters_.add(What::elections_won);
  note("leads", at);
  at.matched.clear();
  // election-quorum, from what reached the voters' disks
  const raft::Configuration& configuration = at.core->configuration();
  const auto vote_of = [&](NodeId id) { return std::optional(oracle_.has_vote(id, now.term, at.id)); };
  if (raft::quorum_vote(configuration, vote_of) != raft::VoteResult::won) {
    broken("election-quorum", fmt::format("node {} term {}", at.id.value, now.term.value));
  }
  if (oracle_.was_ordered(at.id, now.term)) counters_.add(What::transfers_done);
  const auto [committed, chain] = oracle_.committed_before(now.term);
  if (chain_of(at.log, committed) != chain) {
    broken("leader-completeness", fmt::format("node {} lacks entry {}", at.id.value, committed.value));
  }
}

/// commit-quorum and acked-is-durable: a majority of disks would return the entry after a power loss of all.
void World::check_commit(Node& at, const raft::Facts& now) {
  const Index index = now.commit_index;
  if (at.before.role != Role::leader && now.role != Role::leader) broken("a leader commits first", "");
  const std::uint64_t chain = chain_of(at.log, index);
  const Term by = at.before.role == Role::leader ? at.before.term : now.term;
  oracle_.committed_by(by, index, chain);
  // Thesis 3.6.2. (A snapshot's index may be of an earlier term; it was committed by others.)
  if (at.log.has(index) && at.log.at(index).entry.term != by)
    broken("own-term-commit", fmt::format("node {} entry {}", at.id.value, index.value));
  const auto has = [&](NodeId id) { return std::optional(durably_has(node(id), index, chain)); };
  const bool by_now = raft::quorum_vote(at.core->configuration(), has) == raft::VoteResult::won;
  const bool by_before = raft::quorum_vote(at.configuration_before, has) == raft::VoteResult::won;
  if (!by_now && !by_before) broken("commit-quorum", fmt::format("node {} entry {}", at.id.value, index.value));
  for (auto& other : nodes_) {
    if (!other->core.has_value() || other->core->role() != Role::leader || other->core->term() <= by) continue;
    if (chain_of(other->log, index) != chain) broken("leader-completeness", "a later leader lacks it");
  }
}

/// match <= really matching, of the followers' disks.
void World::check_matches(Node& at) {
  // Who was forgotten and comes back begins anew.
  std::erase_if(at.matched, [&](const auto& known) { return at.core->progress(known.first) == nullptr; });
  for (NodeId id : at.core->configuration().ids()) {
    if (id == at.id) continue;
    const Index match = at.core->match_index(id);
    Index& known = at.matched[id];
    if (match == known) continue;
    if (match < known) broken("match_index never falls", "");
    known = match;
    Node& follower = node(id);
    // A later leader may have replaced it since it was acknowledged.
    if (follower.disk.hard_state.term > at.core->term()) continue;
    if (!durably_has(follower, match, chain_of(at.log, match))) {
      broken("match-is-real", fmt::format("node {} of {} up to {}", at.id.value, id.value, match.value));
    }
  }
}

/// What a message promises is durable when it leaves.
void World::check_leaving(const Node& from, const raft::Message& message) {
  const Disk& disk = from.disk;
  const raft::HardState promised{message.term, message.to};
  if (const auto* vote = body_of<raft::VoteReply>(message); vote != nullptr && vote->granted && !vote->pre) {
    const bool later = disk.hard_state.term > message.term;
    if (!later && disk.hard_state != promised) broken("persist-before-send", "a vote");
    if (disk.hard_state.term < message.term) broken("persist-before-send", "a vote's term");
  }
  if (const auto* request = body_of<raft::VoteRequest>(message); request != nullptr && !request->pre) {
    const raft::HardState own{message.term, message.from};
    if (disk.hard_state.term == message.term && disk.hard_state != own) broken("persist-before-send", "the own vote");
    if (disk.hard_state.term < message.term) broken("persist-before-send", "the own vote's term");
  }
  if (const auto* reply = body_of<raft::AppendReply>(message); reply != nullptr && reply->accepted) {
    const Index last = std::max(disk.log.last(), disk.checkpoint.index);
    if (disk.hard_state.term <= message.term && reply->match_index > last) broken("persist-before-send", "entries");
  }
}

// ---- the healed phase ----

/// Everybody runs; pauses and hangs last as long as they were drawn.
void World::restart_all() {
  Time busy_until = now_;
  for (auto& at : nodes_) {
    if (!at->core.has_value()) start(*at);
    busy_until = std::max({busy_until, at->hung_until, at->paused_until});
  }
  run_for(busy_until - now_);
}

/// What was sent before may arrive this much later; a stream that broke brings nothing any more.
Time World::longest_delay() const {
  if (plan_.fifo_links) return 0;
  return 1 + plan_.delay_min + 2 * plan_.delay_mean + (plan_.heavy_tail ? heavy_delay_max : 0);
}

/// All faults end, and the clients' last wish is one write.
void World::heal() {
  cut_.clear();
  healed_ = true;
  const Time all_arrived = now_ + longest_delay();
  restart_all();
  link_busy_until_.clear();
  for (std::uint64_t from = 1; plan_.fifo_links && from <= plan_.nodes; ++from) {
    for (std::uint64_t to = 1; to <= plan_.nodes; ++to) reset_link(from, to);
  }
  const Time begun = now_;
  become_equal();
  healing_ticks_ = (now_ - begun) / tick_units;
  if (verbose_) {
    for (auto& at : nodes_) note("is healed", *at);
  }
  // The order of a transfer that was given up may still come, and is obeyed: only then is the network healthy.
  if (now_ < all_arrived) {
    run_for(all_arrived - now_);
    become_equal();
  }
  // On a healthy network nobody stands again.
  Term term;
  for (auto& at : nodes_) term = std::max(term, at->core->term());
  run_for(6 * election_time());
  for (auto& at : nodes_) {
    if (at->core->term() > term) {
      broken("liveness", fmt::format("an election in a healthy cluster, by node {} in term {}", at->id.value,
                                     at->core->term().value));
    }
  }
  check_idle();
  counters_.add(What::healed_runs);
}

/// Windows may admit one entry per round trip and disk write: equality takes as long as there is to send.
void World::become_equal() {
  const Time begun = now_;
  std::uint64_t longest = 0;
  for (auto& at : nodes_) longest = std::max(longest, at->core->last_index().value);
  const Time equal_within = 40 * election_time() + longest * 6 * tick_units;
  bool led = false;
  while (!converged()) {
    run_for(tick_units);
    const Time passed = now_ - begun;
    for (auto& at : nodes_) led = led || at->core->role() == Role::leader;
    if (!led && passed > 10 * election_time()) broken("liveness", "no leader within 10 election timeouts");
    if (passed > equal_within) broken("liveness", "the members do not become equal");
    write_last();
  }
}

/// Once per leadership.
void World::write_last() {
  for (auto& at : nodes_) {
    if (at->core->role() != Role::leader || at->core->term() == last_written_) continue;
    const std::size_t before = at->writes.size();
    propose(*at);
    if (plan_.reads) ask_read(*at);
    if (at->writes.size() > before) last_written_ = at->core->term();
    drain(*at);
  }
}

/// One leader, followed by all members of its configuration, who have applied its whole log.
bool World::converged() {
  Node* leader = nullptr;
  for (auto& at : nodes_) {
    if (at->core->role() != Role::leader) continue;
    if (leader == nullptr || at->core->term() > leader->core->term()) leader = at.get();
  }
  if (leader == nullptr || last_written_ != leader->core->term()) return false;
  const raft::Core& core = *leader->core;
  if (core.configuration().joint() || core.transfer_pending()) return false;
  if (!core.configuration().is_voter(leader->id)) return false;
  for (NodeId id : core.configuration().ids()) {
    const Node& at = node(id);
    if (at.core->leader_id() != leader->id || at.core->term() != core.term()) return false;
    if (at.applied != core.last_index() || at.core->last_index() != core.last_index()) return false;
  }
  return true;
}

/// accounting-zero and every-call-ends: nothing waits and nothing is in flight.
void World::check_idle() {
  for (auto& at : nodes_) {
    // One that was removed may have been told an index that it will never apply.
    const NodeId leader = at->core->leader_id();
    const bool member = leader && node(leader).core->configuration().contains(at->id);
    if (member && !at->reads.empty()) broken("every-call-ends", fmt::format("a read of node {}", at->id.value));
    if (at->core->role() != Role::leader) continue;
    for (const Write& write : at->writes) {
      if (write.term == at->core->term()) broken("every-call-ends", "a write of the leader");
    }
    if (at->core->uncommitted_bytes() != 0) broken("accounting-zero", "uncommitted bytes");
    for (NodeId id : at->core->configuration().ids()) {
      if (id == at->id) continue;
      if (at->core->progress(id)->inflight_bytes() != 0) broken("accounting-zero", "bytes in flight");
      if (at->core->match_index(id) != at->core->last_index()) broken("liveness", "a member stays behind");
      if (!at->core->caught_up(id)) broken("liveness", "a member does not count as caught up");
    }
  }
}

}  // namespace flotilla::sim
