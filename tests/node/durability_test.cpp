// What a member says waits for its own disk: three real members in virtual time, and disks that stand still.
#include <doctest/doctest.h>

#include "sim_members.hpp"

using namespace flotilla;
using namespace flotilla::sim;
using namespace std::chrono_literals;

TEST_SUITE_BEGIN("node.durability");

TEST_CASE("what only the leader's disk has is not committed: followers answer when theirs have it (B24)") {
  Members members;
  SimMember* const leader = members.leader();
  REQUIRE(leader != nullptr);
  const Index before = leader->status().commit_index;
  members.pause_disks_but(leader, 2s);
  leader->append("list", false, 30s);
  members.scheduler.run_for(1500ms);
  CHECK(leader->status().last_index > before);
  CHECK(leader->status().commit_index == before);
  members.scheduler.run_for(3s);
  CHECK(leader->status().commit_index > before);
  CHECK(members.history.succeeded() == 1);
}

TEST_CASE("what only the followers' disks have is committed, and applied by the leader once its own has it (B23)") {
  Members members;
  SimMember* const leader = members.leader();
  REQUIRE(leader != nullptr);
  const Index before = leader->status().commit_index;
  leader->pause_disk(members.scheduler.now() + 2s);
  leader->append("list", false, 30s);
  members.scheduler.run_for(1500ms);
  const Status status = leader->status();
  CHECK(status.commit_index > before);
  CHECK(status.stable_index == before);
  CHECK(status.applied_index == before);
  members.scheduler.run_for(3s);
  CHECK(leader->status().applied_index == leader->status().commit_index);
}

TEST_CASE("no vote counts before it is on its voter's disk (A3)") {
  Members members;
  SimMember* const former = members.leader();
  REQUIRE(former != nullptr);
  members.pause_disks_but(former, 10s);
  former->close();
  members.scheduler.run_for(9s);
  CHECK(members.leader() == nullptr);
  members.scheduler.run_for(20s);
  CHECK(members.leader() != nullptr);
}

TEST_CASE("calls that were under way to a leader that died reach the next, also if that is the caller itself") {
  Members members;
  SimMember* const former = members.leader();
  REQUIRE(former != nullptr);
  former->pause(members.scheduler.now() + 60s);
  for (const auto& member : members.all) {
    if (member.get() != former) member->append("list", false, 20s);
  }
  members.scheduler.run_for(15s);
  CHECK(members.history.succeeded() == 2);
}

TEST_CASE("a member that has nothing to write tells damage of what it wrote last from a torn tail (E1)") {
  Members members;
  SimMember* const leader = members.leader();
  SimMember* const follower = members.follower();
  REQUIRE(leader != nullptr);
  leader->append("list", false, 30s);
  members.scheduler.run_for(1s);
  CHECK(members.history.succeeded() == 1);
  follower->kill();
  follower->rot_newest_entries();
  const auto started = follower->start();
  REQUIRE_FALSE(started);
  CHECK(started.error() == Errc::damaged);
}

TEST_SUITE_END();
