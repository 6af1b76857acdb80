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

  friend bool operator==(const Member&, const Member&) = default;
};

struct Status {
  ClusterId cluster_id;
  NodeId node_id;
  std::uint64_t incarnation = 0;  ///< raised durably at every start
  Address listen;                 ///< where it really listens (the port that 0 became)
  Role role = Role::follower;
  Term term;
  std::optional<Member> leader;           ///< as far as this member knows
  std::vector<Member> members;            ///< the newest configuration in its log, committed or not
  Index commit_index;                     ///< known to be on a majority
  Index applied_index;                    ///< in the local database, visible to read()
  Index last_index;                       ///< in the local log
  Index stable_index;                     ///< durable in the local log
  Index first_index;                      ///< oldest entry still in the local log
  std::uint64_t snapshots_installed = 0;  ///< received from a leader since the start, because its log began too late
  std::uint64_t pending_calls = 0;
  std::uint64_t log_bytes = 0;    ///< disk used by log segments
  std::uint64_t state_bytes = 0;  ///< length of the database file
  unsigned readers = 0;           ///< ReadTxns open in this process
  std::chrono::milliseconds oldest_reader_age{0};
  std::optional<Error> fault;  ///< why this member stopped itself, if it did
};

std::string_view to_string(Role role) noexcept;

}  // namespace flotilla
