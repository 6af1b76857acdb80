// A copy of the database on its way, into a member or into the place of the one in use, and what stands still or ends
// meanwhile: three real members in virtual time.
#include <doctest/doctest.h>

#include "sim_members.hpp"

using namespace flotilla;
using namespace flotilla::sim;
using namespace std::chrono_literals;

namespace {

void short_log(MemberOptions& options) {
  options.trailing_entries = 5;
  options.checkpoint_interval = 20ms;
  options.log_cache_bytes = 1u << 10;
}

/// Appends, one after the other, for so long.
void write(Members& members, SimMember& at, Duration span) {
  for (const Duration end = members.scheduler.now() + span; members.scheduler.now() < end;) {
    at.append("list", false, 30s);
    members.scheduler.run_for(20ms);
  }
}

/// Away until the leader's log begins behind what it has.
void leave_behind(Members& members, SimMember& away, SimMember& leader) {
  const Index had = away.status().last_index;
  away.kill();
  write(members, leader, 3s);
  REQUIRE(leader.status().first_index > had + 1);
  REQUIRE(away.start().has_value());
}

bool level(const SimMember& one, const SimMember& other) {
  return one.status().applied_index == other.status().applied_index;
}

}  // namespace

TEST_SUITE_BEGIN("node.installation");

TEST_CASE(
    "a snapshot comes to a member whose disk stands still: what waited for the disk is not applied over it (F3)") {
  Members members(short_log);
  SimMember* const leader = members.leader();
  SimMember* const late = members.follower();
  REQUIRE(leader != nullptr);
  late->pause_disk(members.scheduler.now() + 20s);
  const Index durable = late->status().stable_index;
  write(members, *leader, 10s);
  CHECK(late->snapshots_installed() == 1);
  CHECK(late->status().applied_index > durable);
  members.scheduler.run_for(30s);
  CHECK_FALSE(late->status().fault);
  CHECK(level(*late, *leader));
}

TEST_CASE("the log is kept for a member that a snapshot is on its way to: one is enough (F13)") {
  Members members(short_log);
  SimMember* const leader = members.leader();
  SimMember* const away = members.follower();
  REQUIRE(leader != nullptr);
  leave_behind(members, *away, *leader);
  away->pause_apply(members.scheduler.now() + 11s);
  write(members, *leader, 10s);
  CHECK(away->snapshots_installed() == 0);
  members.scheduler.run_for(10s);
  CHECK(away->snapshots_installed() == 1);
  CHECK(level(*away, *leader));
}

TEST_CASE("the log is kept for a compaction however long its copy takes, and not longer (L38)") {
  Members members(short_log);
  SimMember* const member = members.leader();
  REQUIRE(member != nullptr);
  bool compacted = false;
  const Index needed = member->status().applied_index;
  member->pause_copies(members.scheduler.now() + 20s);
  member->compact([&compacted] { compacted = true; });
  write(members, *member, 10s);
  REQUIRE_FALSE(compacted);
  REQUIRE(member->status().checkpoint_index > needed + 300);
  CHECK(member->status().first_index <= needed.next());
  write(members, *member, 20s);
  CHECK(compacted);
  CHECK(member->status().first_index > needed + 300);
}

TEST_CASE("a snapshot that a member lost before it was installed is sent again (F12)") {
  Members members(short_log);
  SimMember* const leader = members.leader();
  SimMember* const away = members.follower();
  REQUIRE(leader != nullptr);
  leave_behind(members, *away, *leader);
  away->pause_apply(members.scheduler.now() + 60s);
  members.scheduler.run_for(5s);
  away->kill();
  REQUIRE(away->start().has_value());
  members.scheduler.run_for(20s);
  CHECK(away->snapshots_installed() == 1);
  CHECK(level(*away, *leader));
}

TEST_SUITE_END();
