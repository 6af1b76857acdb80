#include "raft/invariants.hpp"

namespace flotilla::raft {
namespace {

bool stands(Role role) {
  return role == Role::candidate || role == Role::leader;
}

const char* broken_log(const Facts& now) noexcept {
  if (now.applied_index > now.delivered_index) return "applied_index <= delivered_index";
  if (now.delivered_index > now.commit_index) return "delivered_index <= commit_index";
  if (now.commit_index > now.last_index) return "commit_index <= last_index";
  if (now.stable_index > now.queued_index) return "stable_index <= queued_index";
  if (now.queued_index > now.last_index) return "queued_index <= last_index";
  if (now.first_index > now.last_index.next()) return "first_index <= last_index + 1";
  if (now.first_index > now.applied_index.next()) return "the log is trimmed only below what is applied";
  if (now.last_term > now.term) return "no entry is of a later term than the current";
  if (now.configuration_index > now.last_index) return "the configuration in force is of an entry in the log";
  return nullptr;
}

const char* broken_role(const Facts& now) noexcept {
  const bool leads = now.role == Role::leader;
  if (now.voted_for && !now.term) return "there is no vote before the first term";
  if (stands(now.role) && now.voted_for != now.id) return "a candidate or leader has voted for itself in its term";
  if (leads && now.leader_id != now.id) return "a leader knows itself as the leader";
  if (!leads && now.leader_id == now.id) return "who does not lead does not take itself for the leader";
  if (leads && now.last_term != now.term) return "a leader's last entry is of its own term";
  if (leads && now.term_start > now.last_index) return "a leader keeps the entry that began its term";
  return nullptr;
}

}  // namespace

const char* broken(const Facts& now) noexcept {
  if (const char* name = broken_log(now)) return name;
  if (now.persisted > now.taken) return "nothing is persisted before it is taken";
  return broken_role(now);
}

const char* broken(const Facts& before, const Facts& now) noexcept {
  if (now.term < before.term) return "the term never falls";
  const bool same_term = now.term == before.term;
  if (same_term && before.voted_for && now.voted_for != before.voted_for) return "one vote per term";
  if (now.commit_index < before.commit_index) return "commit_index never falls";
  if (now.applied_index < before.applied_index) return "applied_index never falls";
  if (now.delivered_index < before.delivered_index) return "delivered_index never falls";
  if (now.first_index < before.first_index) return "first_index never falls";
  if (now.taken < before.taken || now.persisted < before.persisted) return "sequences never fall";
  const bool led = same_term && before.role == Role::leader && now.role == Role::leader;
  if (led && now.last_index < before.last_index) return "a leader only appends to its log";
  if (led && now.stable_index < before.stable_index) return "a leader's durable entries stay";
  const bool known = before.leader_id && now.leader_id;
  if (same_term && known && now.leader_id != before.leader_id) return "one leader per term";
  return nullptr;
}

}  // namespace flotilla::raft
