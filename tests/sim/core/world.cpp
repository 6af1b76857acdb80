#include "world.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace flotilla::sim {
namespace {

raft::Configuration first_configuration(const Plan& plan) {
  raft::Configuration configuration;
  for (std::uint64_t id = 1; id <= plan.voters; ++id) configuration.members.push_back(Member{NodeId{id}, "", true});
  return configuration;
}

}  // namespace

World::World(const Plan& plan, bool verbose)
    : plan_(plan), verbose_(verbose), random_(plan.seed), oracle_(first_configuration(plan)) {
  for (std::uint64_t id = 1; id <= plan_.nodes; ++id) {
    nodes_.push_back(std::make_unique<Node>());
    Node& at = *nodes_.back();
    at.id = NodeId{id};
    // The others are empty: they never stand, and take entries from any leader.
    if (id <= plan_.voters) at.first = first_configuration(plan_);
    if (plan_.skew) at.tick_period = tick_units * (80 + random_.below(46)) / 100;
  }
  for (auto& at : nodes_) start(*at);
  schedule(draw(plan_.client_mean), Kind::client, 0);
  schedule(draw(plan_.fault_mean), Kind::fault, 0);
}

void World::schedule(Time delay, Kind kind, std::uint64_t to, std::size_t parcel) {
  const std::uint64_t incarnation = to == 0 ? 0 : node(to).incarnation;
  events_.push(Event{now_ + delay, ++order_, kind, to, incarnation, parcel});
}

std::size_t World::pack(Parcel parcel) {
  if (free_parcels_.empty()) {
    parcels_.push_back(std::move(parcel));
    return parcels_.size() - 1;
  }
  const std::size_t at = free_parcels_.back();
  free_parcels_.pop_back();
  parcels_[at] = std::move(parcel);
  return at;
}

World::Parcel World::unpack(std::size_t at) {
  free_parcels_.push_back(at);
  return std::move(parcels_[at]);
}

void World::note(const char* text, const Node& at) {
  if (!verbose_) return;
  fmt::print("{:>9} {} {}", now_, at.id.value, text);
  if (at.core.has_value()) {
    const raft::Facts facts = at.core->facts();
    fmt::print("  {} term {} commit {} stable {} last {}", to_string(facts.role), facts.term.value,
               facts.commit_index.value, facts.stable_index.value, facts.last_index.value);
  }
  fmt::print("\n");
}

void World::happen(const Event& event) {
  now_ = event.time;
  counters_.add(What::events);
  if (event.node != 0) {
    Node& at = node(event.node);
    // A paused process does nothing; what was to happen happens when it goes on.
    if (at.core.has_value() && at.paused_until > now_ && event.kind != Kind::restart) {
      Event later = event;
      later.time = at.paused_until;
      later.order = ++order_;
      events_.push(later);
      return;
    }
  }
  perform(event);
  trace_ = mix(trace_, mix(event.time, (static_cast<std::uint64_t>(event.kind) << 32) | event.node));
  if (event.node == 0 || !up(event.node)) return;
  const raft::Facts facts = node(event.node).core->facts();
  trace_ = mix(trace_, mix(facts.term.value << 8 | static_cast<std::uint64_t>(facts.role), facts.commit_index.value));
  trace_ = mix(trace_, mix(facts.last_index.value, facts.stable_index.value));
}

void World::perform(const Event& event) {
  if (event.kind == Kind::client) return client();
  if (event.kind == Kind::fault) return fault();
  if (event.kind == Kind::deliver) return arrive(unpack(event.parcel));
  Node& at = node(event.node);
  const bool has_parcel = event.kind == Kind::log_read || event.kind == Kind::bring_snapshot;
  const Parcel parcel = has_parcel ? unpack(event.parcel) : Parcel{};
  if (event.kind == Kind::restart) {
    if (!at.core.has_value()) start(at);
    return;
  }
  if (!at.core.has_value() || event.incarnation != at.incarnation) return;
  switch (event.kind) {
    case Kind::tick: {
      // Starved now and then: the clock of a busy machine skips.
      const Time late = plan_.skew && !healed_ && chance(10) ? tick_units * random_.below(3) : 0;
      schedule(at.tick_period + late, Kind::tick, event.node);
      at.core->tick();
      break;
    }
    case Kind::sync: {
      if (at.hung_until > now_) return schedule(at.hung_until - now_, Kind::sync, event.node);
      at.sync_due = false;
      complete_writes(at, 1 + random_.below(at.writing.size()));
      break;
    }
    case Kind::apply: apply(at); break;
    case Kind::log_read: answer_log_read(at, parcel.read); break;
    case Kind::bring_snapshot: bring_snapshot(at, parcel); break;
    case Kind::install: install(at); break;
    case Kind::trim: trim(at); break;
    case Kind::read:
      if (at.core->role() == Role::leader && at.core->term() < highest_term())
        counters_.add(What::reads_of_stale_leaders);
      ask_read(at);
      break;
    default: break;
  }
  drain(at);
  // The moment between a new state and the new log that goes with it.
  if (event.kind == Kind::install && plan_.crashes && !healed_ && chance(200)) {
    crash(at);
    schedule(draw(10 * tick_units), Kind::restart, event.node);
  }
}

void World::run_for(Time duration) {
  const Time end = now_ + duration;
  while (!events_.empty() && events_.top().time <= end) {
    const Event event = events_.top();
    events_.pop();
    happen(event);
  }
  now_ = end;
}

void World::run() {
  while (counters_[What::events] < plan_.events) {
    const Event event = events_.top();
    events_.pop();
    happen(event);
  }
  heal();
}

}  // namespace flotilla::sim
