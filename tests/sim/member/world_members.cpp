// Who belongs to the cluster of one world, and how that changes.
#include <algorithm>

#include <fmt/format.h>

#include "world.hpp"

namespace flotilla::sim {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t members_most = 7;

}  // namespace

std::vector<Address> World::addresses(const SimMember* without) const {
  std::vector<Address> all;
  for (const auto& member : members_) {
    if (member.get() != without) all.push_back(member->address());
  }
  return all;
}

SimMember& World::add_member(bool found, std::vector<Address> join) {
  const std::string number = std::to_string(members_.size() + 1);
  MemberOptions options;
  options.host = "10.0.0." + number;
  options.directory = directory_ / number;
  options.found = found;
  options.join = std::move(join);
  if (has(Family::drift)) options.clock_rate = 0.8 + 0.45 * static_cast<double>(below(1000)) / 1000;
  options.disk_delay = has(Family::slow_disk) ? between(1ms, 50ms) : Duration(200us);
  options.apply_delay = 100us;
  options.trailing_entries = trailing_;
  options.checkpoint_interval = checkpoint_interval_;

  if (trailing_ < 100) options.log_cache_bytes = 1u << 10;
  options.verbose = verbose_;
  members_.push_back(std::make_unique<SimMember>(scheduler_, network_, history_, oracle_, std::move(options)));
  return *members_.back();
}

/// Knows, for good, that the members are those of this world, and all of them voters.
bool World::is_whole(const SimMember& member) const {
  if (!member.running()) return false;
  const raft::Core& core = member.core();
  const auto& lines = core.configuration().members;
  if (lines.size() != members_.size() || core.configuration_index() > core.commit_index()) return false;
  return !core.configuration().joint() && std::all_of(members_.begin(), members_.end(), [&](const auto& other) {
    const Member* line = core.configuration().find(other->id());
    return line != nullptr && line->voter;
  });
}

bool World::change_members(Family family, SimMember& asked) {
  SimMember& other = any();
  const Duration timeout = between(500ms, 10s);
  switch (family) {
    case Family::removal:
      if (!other.id()) return false;
      leaving_.insert(other.id());
      asked.change(node::Change::remove(other.id()), timeout);
      break;
    case Family::demotion: {
      std::vector<Member> wanted = asked.core().configuration().members;
      const auto line = std::find_if(wanted.begin(), wanted.end(),
                                     [&](const Member& one) { return one.id == other.id() && one.voter; });
      if (line == wanted.end()) return false;
      line->voter = false;
      // With a second one whose vote comes or goes it takes a joint configuration.
      if (Member& second = wanted[below(wanted.size())]; second.id != other.id()) second.voter = !second.voter;
      asked.change(node::Change::configure(std::move(wanted)), timeout);
      break;
    }
    case Family::growth:
      if (members_.size() >= members_most) return false;
      bring_up(add_member(false, addresses(nullptr)));
      break;
    default:
      asked.change(node::Change::transfer(scheduler_.chance(0.5) ? std::optional(other.id()) : std::nullopt), timeout);
  }
  fired(family);
  return true;
}

/// Whoever runs this cluster looks after it: who is gone is removed, and who should vote is promoted.
void World::tend_members() {
  SimMember& asked = any();
  if (asked.running()) {
    if (auto change = repair(asked.core().configuration())) asked.change(std::move(*change), between(2s, 8s));
  }
  later(healing_ ? Duration(500ms) : between(1s, 5s), [this] { tend_members(); });
}

std::optional<node::Change> World::repair(const raft::Configuration& configuration) {
  const auto with = [this](auto condition) {
    return std::find_if(members_.begin(), members_.end(),
                        [&](const auto& one) { return one->id() && condition(*one); });
  };
  for (const Member& line : configuration.members) {
    if (with([&](const SimMember& one) { return one.id() == line.id; }) != members_.end()) continue;
    leaving_.insert(line.id);
    const auto heir = with([&](const SimMember& one) { return one.address() == line.address; });
    if (heir == members_.end() || scheduler_.chance(0.5)) return node::Change::remove(line.id);
    return node::Change::replace(line.id, Member{(*heir)->id(), line.address, true});
  }
  for (const Member& line : configuration.members) {
    if (!line.voter && !line.joining) return node::Change::promote(line.id);
  }
  return std::nullopt;
}

/// Somebody asked to remove it, or to let exactly those be members who were before it joined.
bool World::may_be_removed(const SimMember& member) const {
  return leaving_.contains(member.id()) || has(Family::demotion);
}

/// It was told that it was removed.
void World::leave(SimMember& member) {
  if (std::exchange(troubles_[&member].mending, true)) return;
  later(between(0s, 3s), [this, &member] {
    troubles_[&member].mending = false;
    if (member.running() && member.status().fault) replace(member);
  });
}

}  // namespace flotilla::sim
