// The network, the faults, and the clients.
#include <algorithm>

#include "world.hpp"

namespace flotilla::sim {
namespace {

template <class T>
const T* body_of(const raft::Message& message) {
  return std::get_if<T>(&message.body);
}

}  // namespace

// ---- messages ----

void World::send(Node& from, raft::Message message) {
  check_leaving(from, message);
  counters_.add(What::messages_sent);
  const std::uint64_t to = message.to.value;
  if (const auto* reply = body_of<raft::VoteReply>(message); reply != nullptr && reply->pre && !reply->granted) {
    counters_.add(What::pre_votes_refused);
  }
  if (const auto* request = body_of<raft::VoteRequest>(message); request != nullptr && request->pre) {
    counters_.add(What::candidacies);
  }
  if (const auto* reply = body_of<raft::AppendReply>(message); reply != nullptr && !reply->accepted) {
    counters_.add(What::appends_rejected);
  }
  if (body_of<raft::TimeoutNow>(message) != nullptr) {
    counters_.add(What::transfers_ordered);
    oracle_.ordered(message.to, message.term);
  }
  if (cut_.contains({from.id.value, to})) return counters_.add(What::messages_cut_off);
  if (!plan_.fifo_links && !healed_) {
    if (chance(plan_.loss_permille)) return counters_.add(What::messages_lost);
    if (chance(plan_.double_permille)) {
      counters_.add(What::messages_doubled);
      dispatch(message);
    }
  }
  dispatch(std::move(message));
}

Time World::delay() {
  if (healed_) return 1 + plan_.delay_min + random_.below(tick_units / 20);
  const Time usual = 1 + plan_.delay_min + draw(plan_.delay_mean);
  if (!plan_.heavy_tail || !chance(20)) return usual;
  return usual + random_.below(chance(100) ? heavy_delay_max : heavy_delay);
}

void World::dispatch(raft::Message message) {
  const std::pair link(message.from.value, message.to.value);
  const std::uint64_t to = message.to.value;
  Time arrival = now_ + delay();
  Time& busy_until = link_busy_until_[link];
  if (plan_.fifo_links) {
    arrival = std::max(arrival, busy_until);
  } else if (arrival < busy_until) {
    counters_.add(What::messages_overtaken);
  }
  busy_until = std::max(busy_until, arrival);
  // The resets of the link so far: what is on a stream when it breaks never arrives.
  Parcel parcel{std::move(message), {}, {}, Index{link_resets_[link]}};
  events_.push(Event{arrival, ++order_, Kind::deliver, to, 0, pack(std::move(parcel))});
}

void World::arrive(Parcel parcel) {
  const raft::Message& message = parcel.message;
  const std::pair link(message.from.value, message.to.value);
  if (plan_.fifo_links && link_resets_[link] != parcel.snapshot_index.value) return counters_.add(What::messages_lost);
  Node& to = node(message.to);
  if (!to.core.has_value()) return counters_.add(What::messages_to_the_dead);
  counters_.add(What::messages_delivered);
  to.core->step(std::move(parcel.message));
  drain(to);
}

// ---- faults ----

void World::fault() {
  if (healed_) return;
  schedule(1 + draw(plan_.fault_mean), Kind::fault, 0);
  Node& at = node(1 + random_.below(plan_.nodes));
  if (plan_.strikes && random_.below(3) == 0) return strike();
  switch (random_.below(8)) {
    case 0:
    case 1: return fault_of_network();
    case 2:
      if (plan_.crashes) crash_some();
      return;
    case 3:
      if (plan_.pauses && at.core.has_value()) pause(at);
      return;
    case 4:
      if (!plan_.disk_hangs || !at.core.has_value()) return;
      at.hung_until = std::max(at.hung_until, now_ + draw(60 * tick_units));
      counters_.add(What::disk_hangs);
      return;
    case 5: return reset_link(at.id.value, 1 + random_.below(plan_.nodes));
    case 6:
      if (!plan_.forced_campaigns || !at.core.has_value() || at.paused_until > now_) return;
      counters_.add(What::campaigns_forced);
      at.core->campaign();
      return drain(at);
    case 7:
      if (!cut_.empty()) counters_.add(What::partitions_healed);
      return cut_.clear();
  }
}

void World::cut_both(std::uint64_t a, std::uint64_t b) {
  cut(a, b);
  cut(b, a);
}

void World::fault_of_network() {
  if (!plan_.partitions) return;
  if (random_.below(3) != 0) cut_.clear();
  partition();
}

void World::partition() {
  const std::uint64_t count = plan_.nodes;
  const std::uint64_t one = 1 + random_.below(count);
  switch (random_.below(7)) {
    case 0:
      for (std::uint64_t id = 1; id <= count; ++id) cut_both(one, id);
      return counters_.add(What::partitions_isolate);
    case 1:
      for (std::uint64_t id = 1; id <= count; ++id) cut(one, id);
      return counters_.add(What::partitions_one_way);
    case 2:
      for (std::uint64_t id = 1; id <= count; ++id) cut(id, one);
      return counters_.add(What::partitions_one_way);
    case 3: {
      const std::uint64_t side = random_.next();
      for (std::uint64_t a = 1; a <= count; ++a) {
        for (std::uint64_t b = 1; b <= count; ++b) {
          if (((side >> a) & 1) != ((side >> b) & 1)) cut(a, b);
        }
      }
      return counters_.add(What::partitions_split);
    }
    case 4:
      for (std::uint64_t a = 1; a <= count; ++a) {
        for (std::uint64_t b = 1; b <= count; ++b) {
          const std::uint64_t distance = a < b ? b - a : a - b;
          if (distance > 1 && distance != count - 1) cut(a, b);
        }
      }
      return counters_.add(What::partitions_ring);
    case 5:
      for (std::uint64_t a = 1; a <= count; ++a) {
        for (std::uint64_t b = 1; b <= count; ++b) {
          if (a != one && b != one && a != b) cut(a, b);
        }
      }
      return counters_.add(What::partitions_star);
    case 6:
      for (std::uint64_t a = 1; a <= count; ++a) {
        for (std::uint64_t b = 1; b <= count; ++b) {
          if (random_.below(3) == 0) cut(a, b);
        }
      }
      return counters_.add(What::partitions_matrix);
  }
}

/// The stream breaks: what was on it is gone, and its sender learns so.
void World::reset_link(std::uint64_t from, std::uint64_t to) {
  if (from == to) return;
  ++link_resets_[{from, to}];
  counters_.add(What::links_reset);
  Node& at = node(from);
  if (!at.core.has_value() || at.paused_until > now_) return;
  at.core->unreachable(NodeId{to});
  drain(at);
}

/// What the process does first when it goes on is to serve a client, before it hears what happened meanwhile.
void World::pause(Node& at) {
  at.paused_until = std::max(at.paused_until, now_ + draw(30 * tick_units));
  counters_.add(What::pauses);
  if (plan_.reads) schedule(at.paused_until - now_, Kind::read, at.id.value);
}

/// Of several that take themselves for the leader, the one of the lowest term.
World::Node* World::a_leader() {
  Node* found = nullptr;
  for (auto& at : nodes_) {
    if (!at->core.has_value() || at->core->role() != Role::leader) continue;
    if (found == nullptr || at->core->term() < found->core->term()) found = at.get();
  }
  return found;
}

Term World::highest_term() {
  Term highest;
  for (auto& at : nodes_) {
    if (at->core.has_value() && at->core->role() == Role::leader) highest = std::max(highest, at->core->term());
  }
  return highest;
}

void World::strike() {
  Node* leader = a_leader();
  if (leader == nullptr || leader->paused_until > now_) return;
  const std::uint64_t id = leader->id.value;
  const std::uint64_t spared = 1 + random_.below(plan_.nodes);
  switch (random_.below(5)) {
    case 0:
      if (!plan_.crashes) return;
      counters_.add(What::strikes_crash);
      return restart_later(*leader, 5 * tick_units);
    case 1: counters_.add(What::strikes_isolate); return isolate_and_ask(*leader);
    case 2:
      // Its entries reach one other member alone.
      counters_.add(What::strikes_minority);
      cut_.clear();
      for (std::uint64_t other = 1; other <= plan_.nodes; ++other) {
        if (other != spared) cut_both(id, other);
      }
      return;
    case 3: counters_.add(What::strikes_pause); return pause(*leader);
    case 4: {
      // The successor stands while the leader cannot learn of it.
      if (!leader->core->transfer_leadership(NodeId{spared}).has_value()) return;
      counters_.add(What::strikes_after_transfer);
      drain(*leader);
      return isolate_and_ask(*leader);
    }
  }
}

/// What it answers in the time until it gives up would be stale.
void World::isolate_and_ask(Node& leader) {
  cut_.clear();
  for (std::uint64_t other = 1; other <= plan_.nodes; ++other) cut_both(leader.id.value, other);
  if (!plan_.reads) return;
  for (int i = 0; i < 4; ++i) schedule(draw(10 * tick_units), Kind::read, leader.id.value);
}

void World::restart_later(Node& at, Time mean) {
  crash(at);
  counters_.add(What::restarts);
  schedule(draw(mean), Kind::restart, at.id.value);
  for (std::uint64_t other = 1; other <= plan_.nodes; ++other) reset_link(other, at.id.value);
}

void World::crash_some() {
  const std::uint64_t first = random_.below(plan_.nodes);
  std::uint64_t count = 1;
  switch (random_.below(6)) {
    case 0: count = plan_.nodes; break;
    case 1: count = plan_.nodes / 2 + 1; break;
    default: break;
  }
  if (count == plan_.nodes) counters_.add(What::crashes_of_all);
  for (std::uint64_t i = 0; i < count; ++i) {
    restart_later(node(1 + (first + i) % plan_.nodes), 30 * tick_units);
  }
}

// ---- clients ----

void World::client() {
  if (healed_) return;
  schedule(1 + draw(plan_.client_mean), Kind::client, 0);
  Node& at = node(1 + random_.below(plan_.nodes));
  if (!at.core.has_value() || at.paused_until > now_) return;
  switch (random_.below(10)) {
    case 0:
      if (plan_.membership) change_members(at);
      break;
    case 1:
      if (plan_.transfers) {
        const NodeId to{1 + random_.below(plan_.nodes)};
        if (at.core->transfer_leadership(to).has_value()) counters_.add(What::transfers_begun);
      }
      break;
    case 2:
    case 3:
      if (plan_.reads) ask_read(at);
      if (Node* leader = plan_.reads ? a_leader() : nullptr; leader != nullptr && leader->paused_until <= now_) {
        if (leader->core->term() < highest_term()) counters_.add(What::reads_of_stale_leaders);
        ask_read(*leader);
        drain(*leader);
      }
      break;
    default: {
      // A burst now and then fills windows and limits.
      const std::uint64_t burst = chance(50) ? 20 : 1 + random_.below(2);
      for (std::uint64_t i = 0; i < burst; ++i) propose(at);
      break;
    }
  }
  drain(at);
}

void World::propose(Node& at) {
  const std::uint64_t id = ++next_id_;
  std::string payload(8 + (chance(100) ? random_.below(400) : random_.below(20)), 'p');
  for (std::size_t i = 0; i < 8; ++i) payload[i] = static_cast<char>(id >> (8 * i));
  const auto position = at.core->propose(raft::EntryType::command, SharedBytes(std::move(payload)), clock_of(at));
  if (!position.has_value()) {
    if (at.core->role() == Role::leader) counters_.add(What::proposals_refused);
    return;
  }
  counters_.add(What::entries_proposed);
  at.writes.push_back({position->index, position->term});
}

/// Wall clocks differ by hours and jump.
std::uint64_t World::clock_of(const Node& at) {
  return now_ + mix(plan_.seed, at.id.value) % (1000 * tick_units) + random_.below(100 * tick_units);
}

void World::ask_read(Node& at) {
  const std::uint64_t id = ++next_id_;
  counters_.add(What::reads_asked);
  at.reads.emplace(id, Read{oracle_.observed, std::nullopt});
  at.core->request_read(id);
}

/// Any wish: the core refuses what may not be.
void World::change_members(Node& at) {
  if (at.core->role() != Role::leader) return;
  raft::Configuration wanted{at.core->configuration().members, {}};
  std::vector<Member>& members = wanted.members;
  for (std::uint64_t changes = 1 + random_.below(3); changes > 0; --changes) {
    const NodeId id{1 + random_.below(plan_.nodes)};
    const bool voter = random_.below(3) != 0;
    const auto known =
        std::find_if(members.begin(), members.end(), [id](const Member& member) { return member.id == id; });
    if (known == members.end()) {
      members.push_back(Member{id, "", voter});
    } else if (random_.below(2) == 0) {
      known->voter = voter;
    } else {
      members.erase(known);
    }
  }
  std::sort(members.begin(), members.end(), [](const Member& left, const Member& right) { return left.id < right.id; });
  const bool accepted = at.core->propose_configuration(std::move(wanted), now_).has_value();
  counters_.add(accepted ? What::changes_proposed : What::changes_refused);
  if (accepted && at.core->configuration().joint()) counters_.add(What::joint_entered);
}

}  // namespace flotilla::sim
