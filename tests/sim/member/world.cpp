#include "world.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace flotilla::sim {
namespace {

using namespace std::chrono_literals;

constexpr Duration fault_phase = 60s;
constexpr Duration healed_limit = 60s;
constexpr std::size_t keys = 5;
constexpr std::size_t clients = 6;

}  // namespace

std::string_view to_string(Family family) {
  constexpr std::array<std::string_view, families> names = {"crash",     "crash_many", "close",        "partition",
                                                            "one_way",   "reset",      "slow_network", "slow_disk",
                                                            "disk_hang", "slow_apply", "pause",        "drift"};
  return names[static_cast<std::size_t>(family)];
}

void Totals::add(const Totals& other) {
  seeds += other.seeds;
  events += other.events;
  operations += other.operations;
  succeeded += other.succeeded;
  refused += other.refused;
  unknown += other.unknown;
  lost_callers += other.lost_callers;
  reads += other.reads;
  elections += other.elections;
  starts += other.starts;
  for (std::size_t i = 0; i < families; ++i) faults[i] += other.faults[i];
}

World::World(std::uint64_t seed, const std::filesystem::path& directory, bool verbose)
    : verbose_(verbose),
      scheduler_(seed),
      network_(scheduler_),
      oracle_([this](std::string what) { broken(std::move(what)); }),
      wiretap_([this](const raft::Message& message) { oracle_.said(message, core_of(message.to)); }) {
  network_.tap = [this](std::uint64_t socket, std::string_view bytes) { wiretap_.sent(socket, bytes); };
  for (bool& on : on_) on = scheduler_.chance(0.67);
  if (has(Family::slow_network)) {
    network_.weather.latency_max = between(1ms, 80ms);
    network_.weather.chunk_max = scheduler_.chance(0.3) ? 7 : 1024;
    network_.weather.reset_chance = scheduler_.chance(0.5) ? 0.0005 : 0;
    fired(Family::slow_network);
  }
  const std::size_t count = 3 + below(3);
  const std::uint64_t trailing = below(3) == 0 ? 100000 : below(40);
  for (std::size_t i = 0; i < count; ++i) {
    MemberOptions options;
    options.host = fmt::format("10.0.0.{}", i + 1);
    options.directory = directory / std::to_string(i + 1);
    options.found = i == 0;
    if (i > 0) options.join = "10.0.0.1:7000";
    if (has(Family::drift)) {
      options.clock_rate = 0.8 + 0.45 * static_cast<double>(below(1000)) / 1000;
      fired(Family::drift);
    }
    options.disk_delay = has(Family::slow_disk) ? between(1ms, 50ms) : Duration(200us);
    if (has(Family::slow_disk)) fired(Family::slow_disk);
    options.apply_delay = 100us;
    options.trailing_entries = trailing;
    if (trailing < 100) options.log_cache_bytes = 1u << 10;
    options.verbose = verbose;
    members_.push_back(std::make_unique<SimMember>(scheduler_, network_, history_, oracle_, std::move(options)));
  }
}

void World::later(Duration delay, std::function<void()> what) {
  scheduler_.at(scheduler_.now() + delay, nullptr, std::move(what));
}

std::string World::run() {
  form_cluster();
  for (std::size_t i = 0; i < clients; ++i) client(i);
  later(between(0ms, 2s), [this] { fault(); });
  const Duration end = scheduler_.now() + fault_phase;
  while (!history_.first_broken() && scheduler_.now() < end && scheduler_.step()) watch();
  if (!history_.first_broken()) heal();
  if (!history_.first_broken()) check_end();
  history_.check();
  totals_.seeds = 1;
  totals_.events = scheduler_.steps();
  totals_.operations = history_.operations();
  totals_.succeeded = history_.succeeded();
  totals_.unknown = history_.count(Errc::outcome_unknown);
  totals_.refused = history_.count(Errc::timeout) + history_.count(Errc::no_leader) + history_.count(Errc::overloaded) +
                    history_.count(Errc::shutting_down) + history_.count(Errc::stopped);
  totals_.reads = history_.reads();
  totals_.elections = oracle_.leaders();
  for (const auto& member : members_) totals_.starts += member->starts();
  members_.clear();
  trace_ = scheduler_.steps() * 1000003 + scheduler_.random();
  return history_.first_broken().value_or("");
}

void World::form_cluster() {
  for (const auto& member : members_) bring_up(*member);
  if (history_.first_broken()) return;
  const auto formed = [this] {
    const auto lines = members_[0]->status().members;
    return lines.size() == members_.size() &&
           std::all_of(lines.begin(), lines.end(), [](const Member& line) { return line.voter; });
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

void World::fault() {
  if (healing_) return;
  std::vector<Family> possible;
  for (const Family family : {Family::crash, Family::crash_many, Family::close, Family::partition, Family::one_way,
                              Family::reset, Family::disk_hang, Family::slow_apply, Family::pause}) {
    if (has(family)) possible.push_back(family);
  }
  if (!possible.empty()) strike(possible[below(possible.size())]);
  later(between(200ms, 6s), [this] { fault(); });
}

void World::strike(Family family) {
  SimMember& member = any();
  if (!member.running()) return;
  fired(family);
  const Duration now = scheduler_.now();
  if (verbose_)
    fmt::print("{:10.6f} {} strikes {}\n", std::chrono::duration<double>(now).count(), to_string(family),
               member.host());
  switch (family) {
    case Family::crash: crash(member, between(0s, 10s)); break;
    case Family::crash_many: {
      const std::size_t count = scheduler_.chance(0.5) ? members_.size() : members_.size() / 2 + 1;
      for (std::size_t i = 0; i < count; ++i) {
        if (members_[i]->running()) crash(*members_[i], between(0s, 5s));
      }
      break;
    }
    case Family::close:
      member.close();
      later(between(0s, 3s), [this, &member] {
        if (!member.running()) bring_up(member);
      });
      break;
    case Family::partition: {
      const Duration length = between(100ms, 8s);
      const std::uint64_t side = 1 + below((std::uint64_t{1} << members_.size()) - 2);
      for (std::size_t i = 0; i < members_.size(); ++i) {
        for (std::size_t j = 0; j < members_.size(); ++j) {
          if (((side >> i) & 1) != ((side >> j) & 1)) network_.block(members_[i]->host(), members_[j]->host());
        }
      }
      later(length, [this] { network_.heal_all(); });
      break;
    }
    case Family::one_way: {
      SimMember& other = any();
      if (&other == &member) break;
      network_.block(member.host(), other.host());
      later(between(100ms, 8s), [this, &member, &other] { network_.unblock(member.host(), other.host()); });
      break;
    }
    case Family::reset: network_.reset(member.host(), any().host()); break;
    case Family::disk_hang: member.pause_disk(now + between(10ms, 8s)); break;
    case Family::slow_apply: member.pause_apply(now + between(10ms, 8s)); break;
    case Family::pause: member.pause(now + between(10ms, 8s)); break;
    default: break;
  }
}

void World::crash(SimMember& member, Duration down) {
  const double survival = static_cast<double>(below(101)) / 100;
  member.crash([this, survival] { return scheduler_.chance(survival); });
  later(down, [this, &member] {
    if (!member.running()) bring_up(member);
  });
}

void World::bring_up(SimMember& member) {
  if (auto started = member.start(); !started) {
    broken(fmt::format("{} does not start: {}", member.host(), started.error().message()));
  }
}

void World::heal() {
  healing_ = true;
  network_.heal_all();
  network_.weather.reset_chance = 0;
  for (const auto& member : members_) {
    if (!member->running()) bring_up(*member);
  }
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
  if (history_.acknowledged() > oracle_.committed()) {
    broken(fmt::format("entry {} was acknowledged before it was committed", history_.acknowledged().value));
  }
  if (scheduler_.steps() % 16 != 0) return;
  for (const auto& member : members_) {
    if (!member->running()) continue;
    const Status status = member->status();
    if (status.fault) broken(fmt::format("{} stopped itself: {}", member->host(), status.fault->message()));
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
    text += fmt::format("\n    {} {} term {} leader {} commit {} applied {} last {} stable {} members {} calls {}",
                        member->host(), to_string(status.role), status.term.value,
                        status.leader ? status.leader->address : "none", status.commit_index.value,
                        status.applied_index.value, status.last_index.value, status.stable_index.value,
                        status.members.size(), member->pending_calls());
  }
  return text + history_.describe_last(members_.size());
}

void World::check_end() {
  run_until_healed("calls do not end", [this] {
    return std::all_of(members_.begin(), members_.end(),
                       [](const auto& member) { return member->pending_calls() == 0; });
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
