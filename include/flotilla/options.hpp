// How to open a database. Every field has a safe default; data_dir alone opens a complete one-member database.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>
#include <vector>

#include "flotilla/types.hpp"

namespace flotilla {

/// Severity of a line for the host's log.
enum class LogLevel : std::uint8_t { debug, info, warning, error };

/// Receives the library's log lines. Called from its threads, one line at a time each; must not block or throw.
using LogSink = std::function<void(LogLevel, std::string_view)>;

/// When a command counts as durable. What a killed process wrote is there in any case: this is about power losses, and
/// systems that crash.
enum class Durability : std::uint8_t {
  every_commit,  ///< before its future reports success; nothing that was reported is lost
  interval,      ///< every Options::sync_interval: the commands of that long may be lost, the newest ones
  os,            ///< when the system sees fit, at a checkpoint, and at close(): what came after the last may be lost
};

struct Options {
  /// Where everything of this member lives (created if missing, mode 0700). Required.
  std::filesystem::path data_dir;

  /// Where this member listens, "host:port"; port 0 takes a free one. Empty: no port at all, a one-member embedded
  /// database, which founds itself.
  Address listen;
  /// The address other members and clients are told; default: `listen`. Needed when `listen` names all interfaces.
  Address advertise;
  /// Found a new cluster with this member as its only voter. Once, on the first member, with an empty data_dir; ignored
  /// with a log line when the directory already holds a member.
  bool found = false;
  /// Addresses of members of the cluster to join, any of them. Used while this member is not yet part of one.
  std::vector<Address> join;
  /// False: a member that joins becomes a voter by itself once it has caught up. True: it stays a learner, which holds
  /// everything and counts in no quorum, until DB::promote() or another change of members names it.
  bool join_as_learner = false;
  /// Members state who they are but nothing proves it yet, so only loopback addresses are accepted. True: trust the
  /// network all the same.
  bool plain_text = false;

  /// How long a call may take when it names no deadline of its own. More: calls survive longer elections.
  std::chrono::milliseconds command_timeout{10'000};
  /// Silence after which a follower stands for election, randomised to between 1x and 2x. At least 3 heartbeats. Less:
  /// faster failover, and elections started by mere load.
  std::chrono::milliseconds election_timeout{1000};
  /// How often an idle leader speaks to its followers.
  std::chrono::milliseconds heartbeat_interval{100};

  /// Largest command (name and arguments, encoded), also the frame limit between members: the same on all. 64 B to 64
  /// MiB.
  std::size_t entry_bytes_max = 8u << 20;
  /// Bytes of commands accepted and not yet answered; past it calls are refused with `overloaded`.
  std::size_t pending_bytes_max = 256u << 20;
  /// The same, as a number of calls; at most 16,384, which is also how far the newest may be from the oldest
  /// unanswered.
  std::size_t pending_calls_max = 16'384;
  /// Log entries in one LMDB transaction, and in bytes. More: cheaper apply under load; results wait for their whole
  /// batch.
  std::size_t batch_entries_max = 512;
  std::size_t batch_bytes_max = 4u << 20;
  /// A member on which no call and no read waits for it applies at most so often while commands keep coming: its local
  /// reads may be older by that much. More: less work for followers, in larger batches. 0: at once.
  std::chrono::milliseconds apply_interval{5};
  /// A checkpoint makes the database durable as it stands: a restart replays the log from there, and no older entries
  /// are kept than `trailing_entries`. One is taken after so many bytes of applied log entries (more: longer restarts),
  /// after so much of the database was written anew (what changes between two checkpoints goes to new places, and the
  /// old ones are used again only after the next; so the file has up to three times as much beside its contents), and
  /// after so long. close() takes one, too.
  std::size_t checkpoint_log_bytes = 64u << 20;
  std::size_t checkpoint_growth_bytes = 512u << 20;
  std::chrono::milliseconds checkpoint_interval{30'000};
  /// Entries before the checkpoint that stay in the log for members that lag; one further behind gets a snapshot. More:
  /// disk, and fewer snapshots. The log is cut in whole segments, so it may hold more.
  std::uint64_t trailing_entries = 16'384;
  /// How large the log may become while it is kept for members that a snapshot is on its way to; past it they are given
  /// up for the time being.
  std::uint64_t log_bytes_max = std::uint64_t{8} << 30;
  /// Disk space that is left to what has been accepted: with less, new commands are refused with `disk_full` (a leader
  /// hands over, reads go on, Status::refusing says so) until there is more, and no snapshot is copied or received. At
  /// least as much as the commands under way may take, and three log segments. 0: not watched. A disk that is full to
  /// its last block stops nothing either: what was accepted waits for space, and goes on by itself; only linearizable
  /// reads wait with it.
  std::uint64_t disk_reserve_bytes = 64u << 20;
  /// The same for the size of the database file: with more, new commands are refused. What a long read transaction sees
  /// cannot be used again meanwhile, so the file grows; it never shrinks by itself. 0: as the disk allows.
  std::uint64_t state_bytes_max = 0;

  /// Newest log entries that stay in memory for members that lag, in bytes. More: memory, and fewer reads of the log.
  std::size_t log_cache_bytes = 64u << 20;
  /// Less than every_commit is for a database without a port (`listen` is empty): a member of a cluster that forgot
  /// what it acknowledged would take others' commands with it. Whatever is lost, what remains is the state after some
  /// command and all before it.
  Durability durability = Durability::every_commit;
  /// For Durability::interval. 1 ms at least.
  std::chrono::milliseconds sync_interval{1000};
  /// Size of one log segment file.
  std::size_t segment_bytes = 16u << 20;

  /// Address space reserved for the database, which is its largest possible size. Costs no memory and no disk by
  /// itself; kept small under sanitizers and valgrind. 1 MiB at least.
  std::size_t map_size = std::size_t{256} << 30;
  /// ReadTxns that may be open at once.
  unsigned readers_max = 1024;

  /// Connections that have not yet said what they are: how many, and how long each may take.
  unsigned unclassified_max = 256;
  std::chrono::milliseconds classify_timeout{2000};
  /// Connections in total, and from one address.
  unsigned connections_max = 4096;
  unsigned connections_per_address_max = 1024;

  /// Where log lines go. Default: warnings and errors to standard error.
  LogSink log_sink;
};

}  // namespace flotilla
