// What befalls the members of one world, and how they are brought back.
#include <algorithm>

#include <fmt/format.h>

#include "world.hpp"

namespace flotilla::sim {
namespace {

using namespace std::chrono_literals;

constexpr Duration stop_limit = 30s;  ///< pauses included
constexpr std::uint64_t next_calls = 12;
constexpr std::uint64_t start_calls = 80;

}  // namespace

void World::fault() {
  if (healing_) return;
  // What cannot befall one member now may befall another.
  for (unsigned tries = 0; tries < 4; ++tries) {
    SimMember& member = any();
    const Family family = sudden_[below(sudden_.size())];
    if (!member.running() || !strike(family, member)) continue;
    if (verbose_) note(to_string(family), member);
    break;
  }
  later(between(200ms, 6s), [this] { fault(); });
}

/// False: not now, not this member.
bool World::strike(Family family, SimMember& member) {
  const Duration now = scheduler_.now();
  switch (family) {
    case Family::torn:
    case Family::torn_start:
    case Family::io_error:
    case Family::disk_full: return break_files(family, member);  // counted when it happens
    case Family::bit_rot:
    case Family::set_back:
    case Family::wipe: return damage(family, member);
    case Family::removal:
    case Family::demotion:
    case Family::growth:
    case Family::transfer: return change_members(family, member);
    case Family::crash: lose_power(member, 10s); break;
    case Family::crash_many: {
      const std::size_t count = scheduler_.chance(0.5) ? members_.size() : members_.size() / 2 + 1;
      for (std::size_t i = 0; i < count; ++i) {
        if (members_[i]->running()) lose_power(*members_[i], 5s);
      }
      break;
    }
    case Family::kill:
      member.kill();
      up_later(member, 10s);
      break;
    case Family::close:
      member.close();
      up_later(member, 3s);
      break;
    case Family::partition:
      if (members_.size() < 2) return false;
      partition();
      break;
    case Family::one_way: {
      SimMember& other = any();
      if (&other == &member) return false;
      network_.block(member.host(), other.host());
      later(between(100ms, 8s), [this, &member, &other] { network_.unblock(member.host(), other.host()); });
      break;
    }
    case Family::reset: network_.reset(member.host(), any().host()); break;
    case Family::disk_hang: member.pause_disk(now + between(10ms, 8s)); break;
    case Family::slow_apply: member.pause_apply(now + between(10ms, 8s)); break;
    case Family::pause: member.pause(now + between(10ms, 8s)); break;
    case Family::compaction:
      member.compact([this] { ++counts_.compactions; });
      if (!scheduler_.chance(0.3)) break;
      later(between(0ms, 40ms), [this, &member] {
        if (member.running()) lose_power(member, 5s);
      });
      break;
    case Family::slow_network:
    case Family::slow_disk:
    case Family::drift:
    case Family::torn_install:
    case Family::count_: return false;  // not sudden
  }
  fired(family);
  return true;
}

void World::partition() {
  const std::uint64_t side = 1 + below((std::uint64_t{1} << members_.size()) - 2);
  for (std::size_t i = 0; i < members_.size(); ++i) {
    for (std::size_t j = 0; j < members_.size(); ++j) {
      if (((side >> i) & 1) != ((side >> j) & 1)) network_.block(members_[i]->host(), members_[j]->host());
    }
  }
  later(between(100ms, 8s), [this] { network_.heal_all(); });
}

// ---- files that fail ----

/// One of the member's next file calls fails, or of those of its next start.
bool World::break_files(Family family, SimMember& member) {
  if (troubles_[&member].family) return false;
  const bool torn = family == Family::torn || family == Family::torn_start;
  const bool at_start = family == Family::torn_start || (!torn && scheduler_.chance(0.2));
  if (at_start) {
    member.kill();
    up_later(member, 3s);
  }
  Trouble& trouble = troubles_[&member];
  trouble.family = family;
  trouble.tears = torn;
  trouble.drops = family == Family::io_error && scheduler_.chance(0.5);
  trouble.error = family == Family::disk_full ? Errc::disk_full : Errc::io_error;
  member.break_files({.at = below(at_start ? start_calls : next_calls),
                      .from_then_on = torn || scheduler_.chance(0.5),
                      .error = trouble.error,
                      .partly = scheduler_.chance(0.5)});
  return true;
}

/// After every step: a file call may have failed in it.
void World::watch_files(SimMember& member) {
  if (!member.files_struck()) return;
  Trouble& trouble = troubles_[&member];
  const Duration now = scheduler_.now();
  if (!trouble.struck) {
    trouble.struck = now;
    fired(*trouble.family);
    if (verbose_) note("files fail", member);
    if (trouble.drops) member.drop_unsynced();
    if (trouble.family == Family::disk_full) space_later(member);
  }
  if (trouble.family == Family::disk_full) return;  // it may wait for ever
  if (trouble.tears) return lose_power(member, 5s);
  if (now - *trouble.struck > stop_limit && !member.status().fault) {
    broken(fmt::format("{} goes on although its files failed", member.host()));
  }
}

/// It goes on by itself then.
void World::space_later(SimMember& member) {
  later(between(0s, 15s), [this, &member, struck = *troubles_[&member].struck] {
    if (troubles_[&member].struck != struck) return;
    member.mend_files();
    Trouble& trouble = troubles_[&member];
    trouble = {.rotten = trouble.rotten, .set_back = trouble.set_back};
    if (verbose_) note("there is space again", member);
  });
}

/// It stopped itself: promised of one whose files fail (but not because they are full), and of nobody else.
void World::watch_fault(SimMember& member, const Error& fault) {
  Trouble& trouble = troubles_[&member];
  if (fault == Errc::removed && may_be_removed(member)) return leave(member);
  const bool failed = trouble.struck && trouble.family != Family::disk_full;
  const bool promised = trouble.set_back || (failed && fault == trouble.error);
  if (!promised) return broken(fmt::format("{} stopped itself: {}", member.host(), fault.message()));
  if (std::exchange(trouble.mending, true)) return;
  later(between(0s, 3s), [this, &member] {
    troubles_[&member].mending = false;
    if (!member.running() || !member.status().fault) return;
    switch (below(3)) {
      case 0: return lose_power(member, 3s);
      case 1: member.kill(); break;
      default: member.close(); break;
    }
    up_later(member, 3s);
  });
}

// ---- down and up ----

void World::lose_power(SimMember& member, Duration down_max) {
  const std::uint64_t kind = below(4);
  const double survival = kind == 0 ? 0 : kind == 1 ? 1 : static_cast<double>(below(101)) / 100;
  member.lose_power([this, survival] { return scheduler_.chance(survival); });
  ++counts_.crashes;
  up_later(member, down_max);
}

/// Its files work again.
void World::up_later(SimMember& member, Duration longest) {
  Trouble& trouble = troubles_[&member];
  trouble = {.set_back = trouble.set_back};
  later(between(0s, longest), [this, &member] {
    if (!member.running() && !troubles_[&member].waits) bring_up(member);
  });
}

void World::bring_up(SimMember& member) {
  Trouble& trouble = troubles_[&member];
  const auto started = member.start();
  if (trouble.rotten) {
    trouble.rotten = false;
    if (started || !(started.error() == Errc::damaged || started.error() == Errc::version_unsupported)) {
      broken(fmt::format("{} has a damaged disk, and its start says: {}", member.host(),
                         started ? "nothing" : started.error().message()));
    }
    return replace(member);
  }
  if (started) return;
  if (started.error() == Errc::removed && may_be_removed(member)) return replace(member);
  if (!member.files_struck()) {
    return broken(fmt::format("{} does not start: {}", member.host(), started.error().message()));
  }
  fired(*trouble.family);
  if (verbose_) note("files fail at the start", member);
  if (trouble.tears) return lose_power(member, 3s);
  member.kill();
  up_later(member, 3s);
}

// ---- disks that forget ----

/// One member per seed at most.
bool World::damage(Family family, SimMember& member) {
  if (damaged_ || troubles_[&member].family) return false;
  if (family == Family::set_back) {
    if (!member.has_image()) return false;
    damaged_ = true;
    lose_power(member, 0s);
    troubles_[&member].waits = true;
    later(between(0s, 2s), [this, &member] { set_back_when_safe(member, 50); });
    return true;
  }
  damaged_ = true;
  fired(family);
  if (family == Family::wipe) {
    replace(member);
    return true;
  }
  lose_power(member, 5s);
  member.rot();
  troubles_[&member].rotten = true;
  return true;
}

void World::take_image() {
  for (const auto& member : members_) {
    if (member->running()) member->take_image();
  }
}

/// Nothing that its disk forgets is still needed: whatever it acknowledged or voted, all others have gone on to one
/// term together, and hold entries of it and all of its log that counts there.
bool World::may_be_set_back(const SimMember& member) const {
  const SimMember& any_other = *members_[members_[0].get() == &member ? 1 : 0];
  if (!any_other.running()) return false;
  const Term term = any_other.core().term();
  if (term < member.disk().hard_state.term) return false;
  return std::all_of(members_.begin(), members_.end(), [&](const auto& other) {
    if (other.get() == &member) return true;
    if (!other->running() || other->core().term() != term || !other->core().leader_id()) return false;
    if (other->core().configuration_index() != member.image_configuration_index()) return false;
    const bool holds_it = member.disk().last_term() < term || other->durable_term(member.disk().last_index()) == term;
    return other->durable_end().first == term && holds_it;
  });
}

void World::set_back_when_safe(SimMember& member, unsigned attempts) {
  if (healing_) return;
  if (attempts == 0 || may_be_set_back(member)) {
    Trouble& trouble = troubles_[&member];
    trouble.waits = false;
    if (attempts > 0) {
      fired(Family::set_back);
      trouble.set_back = true;
      member.set_back();
      later(between(3s, 15s), [this, &member] {
        if (!healing_ && troubles_[&member].set_back) replace(member);
      });
    }
    return bring_up(member);
  }
  later(200ms, [this, &member, attempts] { set_back_when_safe(member, attempts - 1); });
}

/// What is left of it is thrown away, and its place taken by a new member.
void World::replace(SimMember& member) {
  if (member.running()) member.kill();
  leaving_.insert(member.id());
  member.wipe(addresses(&member));
  troubles_[&member] = {};
  if (healing_) return bring_up(member);
  up_later(member, 5s);
}

/// From here on nothing happens to anybody any more.
void World::heal() {
  healing_ = true;
  network_.heal_all();
  network_.weather.reset_chance = 0;
  for (const auto& member : members_) {
    Trouble& trouble = troubles_[member.get()];
    if (trouble.set_back || (member->running() && member->status().fault == Errc::removed)) {
      replace(*member);
      continue;
    }
    if (member->running() && trouble.struck && trouble.family != Family::disk_full) member->kill();
    member->mend_files();
    trouble = {.rotten = trouble.rotten};
    if (!member->running()) bring_up(*member);
  }
}

}  // namespace flotilla::sim
