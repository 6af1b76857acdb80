// What a member knows about itself and its cluster at one moment.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "flotilla/error.hpp"
#include "flotilla/types.hpp"

namespace flotilla {

enum class Role : std::uint8_t { follower, pre_candidate, candidate, leader };

/// One line of the configuration.
struct Member {
  NodeId id;
  Address address;     ///< empty for a one-member database without a port
  bool voter = false;  ///< false: a learner, which receives everything and counts in no quorum
  /// A learner that the leader makes a voter as soon as it has caught up; one with false stays what it is.
  bool joining = false;

  friend bool operator==(const Member&, const Member&) = default;
};

/// What a leader knows about another member.
struct MemberProgress {
  NodeId id;
  Index match_index;       ///< it holds, durably, the leader's log up to here
  bool caught_up = false;  ///< it holds all that it could; a learner may be promoted
  /// Its log is not what it acknowledged: its disk was set back, or exchanged for a copy. It counts in no quorum; if it
  /// stays so, replace it by a member with an empty directory.
  bool rolled_back = false;
  std::chrono::milliseconds silent{0};  ///< since the leader heard of it
};

struct Status {
  ClusterId cluster_id;
  NodeId node_id;
  std::uint64_t incarnation = 0;  ///< raised durably at every start
  Address listen;                 ///< where it really listens (the port that 0 became)
  Role role = Role::follower;
  Term term;
  std::optional<Member> leader;  ///< as far as this member knows
  std::vector<Member> members;   ///< the newest configuration in its log, committed or not
  /// On the leader: the other members, as of its last tick (a fifth of a heartbeat). Empty elsewhere.
  std::vector<MemberProgress> progress;
  Index commit_index;      ///< known to be on a majority
  Index applied_index;     ///< in the local database, visible to read()
  Index last_index;        ///< in the local log
  Index stable_index;      ///< durable in the local log
  Index first_index;       ///< oldest entry still in the local log
  Index checkpoint_index;  ///< a restart replays the local log from here; as of the last tick

  std::uint64_t snapshots_installed = 0;  ///< received from a leader since the start, because its log began too late
  std::uint64_t pending_calls = 0;
  std::uint64_t log_bytes = 0;    ///< disk used by log segments
  std::uint64_t state_bytes = 0;  ///< length of the database file
  bool compacting = false;        ///< DB::compact() is under way; as of the last tick
  unsigned readers = 0;           ///< ReadTxns open in this process
  std::chrono::milliseconds oldest_reader_age{0};
  /// Of the database file, and of files that were replaced: what open ReadTxns keep from being used again.
  std::uint64_t pinned_bytes = 0;
  std::optional<Error> refusing;  ///< why this member as leader accepts no command for the time being: disk_full
  std::optional<Error> fault;  ///< why this member stopped itself, if it did; Errc::removed: it is no member any more
};

std::string_view to_string(Role role) noexcept;

}  // namespace flotilla
