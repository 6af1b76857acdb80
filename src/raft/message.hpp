// What cores say to each other: one struct per RPC.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "flotilla/types.hpp"
#include "raft/configuration.hpp"
#include "raft/entry.hpp"

namespace flotilla::raft {

/// Thesis 3.4, 9.6. `pre` asks only whether a vote would be granted; neither side changes its term.
struct VoteRequest {
  bool pre = false;
  bool transfer = false;  ///< ordered by the leader: passes leader stickiness
  Index last_index;       ///< durable entries only
  Term last_term;
};
/// Envelope term: of the request when granting, the replier's own when refusing (so a refused pre-vote spreads the
/// higher term).
struct VoteReply {
  bool pre = false;
  bool granted = false;
};
/// Thesis 3.5. With no entries it probes or announces the commit index.
struct AppendRequest {
  Index prev_index;
  Term prev_term;
  Index commit_index;
  std::vector<Entry> entries;  ///< contiguous from prev_index + 1
};
/// Accepted: everything up to match_index is as the leader has it, and durable here. Rejected: prev_index did not
/// match; the hint is the follower's conflicting term and the first index of it (0: its log ends at last_index).
/// A follower whose apply is far behind takes no entries: it accepts what matches, and rejects what follows it.
struct AppendReply {
  bool accepted = false;
  Index match_index;     ///< accepted: prev_index + entries of that request, never the whole tail
  Index rejected_index;  ///< rejected: the prev_index of that request; accepted: there is no room from here on
  Term conflict_term;
  Index conflict_index;
  Index last_index;
};
/// Keeps followers quiet and carries the newest read round. Never gated by the disk.
struct Heartbeat {
  Index commit_index;  ///< min(commit, what this follower is known to match)
  std::uint64_t read_round = 0;
};
struct HeartbeatReply {
  std::uint64_t read_round = 0;
};
/// A follower asks the leader for a read index (thesis 6.4). `id` is unique within the asking incarnation.
struct ReadIndexRequest {
  std::uint64_t id = 0;
};
struct ReadIndexReply {
  std::uint64_t id = 0;
  bool accepted = false;  ///< false: ask again, or elsewhere
  Index read_index;
};
/// Leadership transfer (thesis 3.10): stand now, without pre-vote.
struct TimeoutNow {};
/// The follower lacks what the log no longer has. Announces the snapshot; its bytes travel on a connection of their
/// own.
struct SnapshotRequest {
  Index index;
  Term index_term;
  Configuration configuration;
};
struct SnapshotReply {
  bool accepted = false;  ///< installed, or not needed
  Index match_index;
};

using Body = std::variant<VoteRequest, VoteReply, AppendRequest, AppendReply, Heartbeat, HeartbeatReply,
                          ReadIndexRequest, ReadIndexReply, TimeoutNow, SnapshotRequest, SnapshotReply>;

struct Message {
  NodeId from;
  NodeId to;
  Term term;
  Body body;
};

}  // namespace flotilla::raft
