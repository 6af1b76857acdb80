#include "world.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

namespace flotilla::sim {
namespace {

using namespace std::chrono_literals;

constexpr Duration healed_limit = 60s;
constexpr Duration requests_last = 12s;
constexpr std::size_t keys = 5;
constexpr std::size_t clients = 6;
constexpr std::size_t commands_min = 200;
constexpr std::uint64_t faults_min = 3;

}  // namespace

World::World(Plan plan, const std::filesystem::path& directory, bool verbose)
    : plan_(std::move(plan)),
      verbose_(verbose),
      directory_(directory),
      scheduler_(plan_.seed),
      network_(scheduler_),
      oracle_([this](std::string what) { broken(std::move(what)); }),
      wiretap_([this](const raft::Message& message) { overhear(message); }) {
  network_.tap = [this](std::uint64_t socket, std::string_view bytes) { wiretap_.sent(socket, bytes); };
  for (std::size_t i = 0; i < families; ++i) {
    const auto family = static_cast<Family>(i);
    const bool lasting = family == Family::slow_network || family == Family::slow_disk || family == Family::drift ||
                         family == Family::torn_install;
    if (!lasting && has(family)) sudden_.push_back(family);
  }
  if (has(Family::slow_network)) {
    network_.weather.latency_max = between(1ms, 80ms);
    network_.weather.chunk_max = scheduler_.chance(0.3) ? 7 : 1024;
    // Per chunk; a snapshot must have a chance to get through.
    const double resets = network_.weather.chunk_max == 7 ? 0.00002 : 0.0005;
    network_.weather.reset_chance = scheduler_.chance(0.5) ? resets : 0;
    fired(Family::slow_network);
  }
  if (has(Family::slow_disk)) fired(Family::slow_disk);
  if (has(Family::drift)) fired(Family::drift);
  trailing_ = below(3) == 0 ? 100000 : below(40);
  checkpoint_interval_ = 20ms * (1 << below(10));

  for (std::size_t i = 0; i < plan_.members; ++i)
    add_member(i == 0, i == 0 ? std::vector<Address>{} : addresses(nullptr));
}

void World::later(Duration delay, std::function<void()> what) {
  scheduler_.at(scheduler_.now() + delay, nullptr, std::move(what));
}

std::string World::run() {
  try {
    form_cluster();
    formed_ = scheduler_.now();
    for (std::size_t i = 0; i < clients; ++i) client(i);
    if (!sudden_.empty()) later(between(0ms, 2s), [this] { fault(); });
    later(2s, [this] { tend_members(); });
    if (has(Family::set_back)) later(between(0s, 20s), [this] { take_image(); });
    const Duration end = formed_ + plan_.until;
    while (!history_.first_broken() && scheduler_.now() < end && scheduler_.step()) watch();
    if (!history_.first_broken()) heal();
    if (!history_.first_broken()) check_end();
    if (!history_.first_broken()) history_.check();
    if (!history_.first_broken() && plan_ == draw_plan(plan_.seed)) check_effort();
  } catch (const std::exception& thrown) {  // an assertion of the code under test
    broken(thrown.what());
  }
  count();
  members_.clear();
  trace_ = (scheduler_.steps() * 1000003 + static_cast<std::uint64_t>(scheduler_.now().count())) ^ scheduler_.random();
  return history_.first_broken().value_or("");
}

/// A seed in which little happens proves little.
void World::check_effort() {
  const std::uint64_t faults = std::accumulate(counts_.faults.begin(), counts_.faults.end(), std::uint64_t{0});
  if (history_.operations() < commands_min) broken(fmt::format("only {} commands were issued", history_.operations()));
  if (faults < faults_min) broken(fmt::format("only {} faults struck", faults));
}

void World::fired(Family family) {
  if (++counts_.faults[position(family)] == 2 && family == plan_.planted) broken("planted");
}

void World::count() {
  counts_.events = scheduler_.steps();
  counts_.commands = history_.operations();
  counts_.succeeded = history_.succeeded();
  counts_.unknown = history_.count(Errc::outcome_unknown);
  counts_.refused = history_.count(Errc::timeout) + history_.count(Errc::no_leader) + history_.count(Errc::overloaded) +
                    history_.count(Errc::shutting_down) + history_.count(Errc::stopped);
  counts_.reads = history_.reads();
  counts_.elections = oracle_.leaders();
  counts_.truncations = oracle_.truncations();
  counts_.configurations = oracle_.configurations();
  counts_.simulated = scheduler_.now();
  for (const auto& member : members_) {
    counts_.starts += member->starts();
    counts_.installs += member->snapshots_installed();
  }
}

void World::note(std::string_view what, const SimMember& member) const {
  fmt::print("{:10.6f} {} {}\n", std::chrono::duration<double>(scheduler_.now()).count(), member.host(), what);
}

void World::form_cluster() {
  for (const auto& member : members_) bring_up(*member);
  if (history_.first_broken()) return;
  // All know, for good, that all are voters: before that one who is lost might be one too many.
  const auto formed = [this] {
    return std::all_of(members_.begin(), members_.end(), [this](const auto& member) { return is_whole(*member); });
  };
  const Duration end = scheduler_.now() + 120s;
  while (!history_.first_broken() && !formed()) {
    if (scheduler_.now() >= end || !scheduler_.step()) return broken("the cluster did not form");
    watch();
  }
}

void World::client(std::size_t number) {
  if (healing_) return;
  SimMember& member = any();
  if (member.running()) {
    const std::string key = fmt::format("list {}", below(keys));
    const std::uint64_t kind = below(20);
    if (kind < 14) {
      member.append(key, kind == 0, between(200ms, 10s));
    } else if (kind < 17) {
      member.read_linearizable(key, between(200ms, 5s));
    } else {
      member.read_local(key);
    }
  }
  later(between(1ms, 800ms), [this, number] { client(number); });
}

void World::overhear(const raft::Message& message) {
  oracle_.said(message, core_of(message.to));
  if (!std::holds_alternative<raft::SnapshotRequest>(message.body) || !has(Family::torn_install) || healing_) return;
  if (!scheduler_.chance(0.3)) return;
  later(between(0ms, 100ms), [this, to = message.to] {
    for (const auto& member : members_) {
      if (healing_ || !member->running() || member->id() != to) continue;
      fired(Family::torn_install);
      lose_power(*member, 3s);
    }
  });
}

const raft::Core* World::core_of(NodeId id) const {
  for (const auto& member : members_) {
    if (member->running() && member->id() == id) return &member->core();
  }
  return nullptr;
}

/// After every step: who did something, and now and then what everybody says of itself.
void World::watch() {
  for (const auto& member : members_) {
    if (member->is_loop(scheduler_.last_actor())) oracle_.look(member->core());
  }
  for (const auto& member : members_) watch_files(*member);
  if (history_.acknowledged() > oracle_.committed()) {
    broken(fmt::format("entry {} was acknowledged before it was committed", history_.acknowledged().value));
  }
  if (scheduler_.steps() % 16 != 0) return;
  for (const auto& member : members_) {
    if (!member->running()) continue;
    const Status status = member->status();
    if (status.fault) watch_fault(*member, *status.fault);
    if (status.applied_index > status.commit_index && status.commit_index) {
      broken(fmt::format("{} applied {} and committed only {}", member->host(), status.applied_index.value,
                         status.commit_index.value));
    }
  }
}

void World::run_until_healed(const char* what, const std::function<bool()>& done) {
  if (history_.first_broken()) return;
  const Duration end = scheduler_.now() + healed_limit;
  while (!done()) {
    if (scheduler_.now() >= end || !scheduler_.step()) {
      return broken(fmt::format("in a healed cluster, {}: {}", what, describe()));
    }
    watch();
    if (history_.first_broken()) return;
  }
}

std::string World::describe() const {
  std::string text;
  for (const auto& member : members_) {
    if (!member->running()) continue;
    const Status status = member->status();
    std::string lines;
    for (const Member& line : status.members)
      lines += fmt::format(" {}{}", line.address, line.voter ? "" : " (learner)");
    text += fmt::format("\n    {} {} term {} leader {} commit {} applied {} last {} stable {} calls {} members{}",
                        member->host(), to_string(status.role), status.term.value,
                        status.leader ? status.leader->address : "none", status.commit_index.value,
                        status.applied_index.value, status.last_index.value, status.stable_index.value,
                        member->pending_calls(), lines);
  }
  return text + history_.describe_last(members_.size());
}

void World::check_end() {
  // What was asked of members is over by then.
  const Duration settled = scheduler_.now() + requests_last;
  run_until_healed("time stands still", [this, settled] { return scheduler_.now() >= settled; });
  run_until_healed("calls do not end", [this] {
    return std::all_of(members_.begin(), members_.end(),
                       [](const auto& member) { return member->running() && member->pending_calls() == 0; });
  });
  run_until_healed("members are not what they should be", [this] {
    return std::all_of(members_.begin(), members_.end(), [this](const auto& member) { return is_whole(*member); });
  });
  // Everybody can write again.
  const std::size_t before = history_.succeeded();
  for (const auto& member : members_) member->append("list 0", false, 30s);
  run_until_healed("a write does not succeed", [&] { return history_.succeeded() == before + members_.size(); });
  run_until_healed("members do not become level", [this] {
    const Index index = members_[0]->content().second;
    return std::all_of(members_.begin(), members_.end(),
                       [&](const auto& member) { return member->content().second == index; });
  });
  if (history_.first_broken()) return;
  const auto content = members_[0]->content();
  for (const auto& member : members_) {
    if (member->content() != content)
      broken(fmt::format("{} holds other contents than {}", member->host(), members_[0]->host()));
  }
}

}  // namespace flotilla::sim
