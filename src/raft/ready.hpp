// Ready: what the outside must do now, and in which order.
//
// The contract, per Ready, in the order of `sequence`:
//  1. `messages` may leave at once, before anything is durable.
//  2. `hard_state`, `log_restart` and `entries` go to the log's queue, in order. An entry whose index is not above the
//     log's last index replaces the log from there on.
//  3. A Ready is *durable* once it and every Ready before it are. Then: call Core::persisted with its sequence, and let
//     its `messages_after_sync` leave. One with nothing to write is durable as soon as the ones before it are.
//  4. `committed` goes to the applier, in order, as soon as wanted: apply does not wait for the local disk.
//  5. If a write fails, nothing after it happens: this run of the member stops.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "flotilla/status.hpp"
#include "flotilla/types.hpp"
#include "raft/configuration.hpp"
#include "raft/entry.hpp"
#include "raft/message.hpp"

namespace flotilla::raft {

/// Term and vote: durable before any message that depends on them.
struct HardState {
  Term term;
  NodeId voted_for;

  friend bool operator==(const HardState&, const HardState&) = default;
};

/// The answer to Core::request_read.
struct ReadState {
  std::uint64_t id = 0;
  std::optional<Index> read_index;  ///< none: no leader confirmed it; ask again
};

/// Entries for `peer` that are no longer in memory. Answer with Core::loaded; only one is outstanding per peer.
struct LogRead {
  NodeId peer;
  Index first_index;  ///< the entry before it is wanted too, for its term alone
  std::size_t bytes_max = 0;
};

/// `peer` needs a snapshot: bring a copy of the state over to it, without installing it there. Answer with
/// Core::snapshot_sent / snapshot_failed.
struct SnapshotSend {
  NodeId peer;
};

/// A snapshot: the state as of one entry, and what goes with it.
struct SnapshotMeta {
  Index index;
  Term term;  ///< of the entry at index, not the sender's
  Configuration configuration;
  Index configuration_index;
  std::uint64_t time = 0;  ///< of the entry at index

  friend bool operator==(const SnapshotMeta&, const SnapshotMeta&) = default;
};

/// The leader's snapshot that this member needs, whose bytes it received on a connection of their own. Install it after
/// everything handed to the applier before, or not at all; then call Core::snapshot_installed or snapshot_refused.
struct SnapshotOffer {
  NodeId from;
  Index index;
  Term index_term;
  Configuration configuration;
};

struct Ready {
  std::uint64_t sequence = 0;  ///< 1, 2, 3, ... without gaps
  std::optional<HardState> hard_state;
  std::optional<SnapshotMeta> log_restart;  ///< before `entries`: the log drops everything and begins anew after it
  std::vector<Entry> entries;
  Index commit_index;  ///< to be kept with the next write; needs no write or sync of its own
  std::vector<Message> messages;
  std::vector<Message> messages_after_sync;
  std::vector<Entry> committed;
  std::vector<ReadState> reads;
  std::vector<LogRead> log_reads;
  std::vector<SnapshotSend> snapshot_sends;
  std::optional<SnapshotOffer> snapshot_offer;  ///< one at a time
  bool role_changed = false;                    ///< role, term or leader differ from the Ready before
  bool configuration_changed = false;           ///< Core::configuration() differs

  bool must_write() const { return hard_state.has_value() || log_restart.has_value() || !entries.empty(); }
};

}  // namespace flotilla::raft
