// A replicated, programmable database inside this process.
//
//   flotilla::Options options;
//   options.data_dir = "data";
//   auto db = flotilla::DB::open(options, flotilla::standard_commands()).value();
//   db.command("put", {"accounts", "alice", "90"}).get().value();
//   auto snapshot = db.read().value();
//   auto balance = snapshot.table("accounts").get("alice");
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "flotilla/command.hpp"
#include "flotilla/error.hpp"
#include "flotilla/metrics.hpp"
#include "flotilla/options.hpp"
#include "flotilla/status.hpp"
#include "flotilla/stream.hpp"
#include "flotilla/txn.hpp"
#include "flotilla/types.hpp"

namespace flotilla {

namespace detail {
class DbImpl;
}

enum class Consistency : std::uint8_t {
  /// The newest snapshot applied here. Includes every command this process was told had succeeded. No network, no wait.
  local,
  /// Also includes everything any member was told had succeeded before the call. One round trip to a majority.
  linearizable,
};

using Completion = std::function<void(Result<Bytes>)>;
using IndexCompletion = std::function<void(Result<Index>)>;

/// Deadline of one call, from now; the default is Options::command_timeout.
struct CallOptions {
  std::optional<std::chrono::milliseconds> timeout;
};

/// An open member. Move-only; destroying it closes it. Thread: any, unless a function says otherwise.
class DB {
 public:
  /// Opens or creates the member in options.data_dir, and applies what its log says is committed.
  /// Blocking: as long as that takes; does not wait for a leader. A new directory needs `found`, `join`, or no
  /// `listen`. Errors: invalid_argument, in_use, io_error, disk_full, damaged, address_in_use, not_founded,
  /// version_unsupported, map_full, removed.
  static Result<DB> open(const Options& options, const Commands& commands);

  DB(DB&&) noexcept;
  DB& operator=(DB&&) noexcept;
  ~DB();

  /// Runs a command on every member, in log order. May be called on any member; it reaches the leader by itself.
  ///
  /// Success means: durable on a majority, applied here with this result, visible to every later read() of this process
  /// and to every later linearizable read anywhere. Errors: what the command returned; refused (see Errc, first group);
  /// or outcome_unknown. Every future becomes ready by its deadline, also when the database is closed. Returns at once;
  /// never blocks. From a completion or a command: ready with would_deadlock (waiting there would stop the thread that
  /// answers).
  [[nodiscard]] std::future<Result<Bytes>> command(std::string_view name, std::initializer_list<std::string_view> args,
                                                   CallOptions call = {});
  [[nodiscard]] std::future<Result<Bytes>> command(std::string_view name, std::span<const std::string_view> args,
                                                   CallOptions call = {});
  /// Completion form: `done` runs once and must not block or throw: on a thread of the database, or, if the command is
  /// refused at once, inside this call (hold no lock that it takes). May be used from a completion.
  void command(std::string_view name, std::initializer_list<std::string_view> args, Completion done,
               CallOptions call = {});
  void command(std::string_view name, std::span<const std::string_view> args, Completion done, CallOptions call = {});

  /// A snapshot. `local` never blocks; `linearizable` waits for the leader and for this member to apply, at most the
  /// deadline: timeout, no_leader, would_deadlock, and after close() shutting_down. Both: too_many_readers, closed,
  /// forked, would_deadlock (inside a command).
  [[nodiscard]] Result<ReadTxn> read(Consistency consistency = Consistency::local, CallOptions call = {});
  /// A snapshot that includes `at_least` (an index another member's result or read was at). timeout.
  [[nodiscard]] Result<ReadTxn> read(Index at_least, CallOptions call = {});

  /// Ready once this member has applied everything that any member was told had succeeded before the call; the value is
  /// the index it then had applied at least. A linearizable read is a barrier and a local read.
  [[nodiscard]] std::future<Result<Index>> barrier(CallOptions call = {});
  void barrier(IndexCompletion done, CallOptions call = {});

  // ---- members
  //
  // May be called on any member, which asks the leader, and again whichever leader follows, until the deadline.
  // Success means: the change is committed, a joint phase included, and this member has it in its own configuration
  // (status().members). What is so already succeeds too, so asking again is always safe. One change is carried out at a
  // time; others wait for it.
  //
  // Errors: invalid_argument (refused, with the reason), no_leader, timeout, overloaded, shutting_down, stopped:
  // nothing was changed; outcome_unknown: something was begun, ask again to complete it. The message says what it
  // waited for, such as how far a new voter is behind. Returns at once; from a completion or a command: ready with
  // would_deadlock.
  //
  // A node that was removed never comes back under its id: it is told, stops with status().fault removed, and needs an
  // empty directory to join anew. Addresses are data: a member that starts with another one makes it known by itself.

  /// Adds a node as a learner, or moves one to another address. It stays a learner until promote(). The node itself has
  /// to run with Options::join, and Options::join_as_learner if it should not become a voter by itself.
  [[nodiscard]] std::future<Result<void>> add_learner(NodeId id, Address address, CallOptions call = {});
  /// Makes a learner a voter; waits until it has caught up. Refused: no member.
  [[nodiscard]] std::future<Result<void>> promote(NodeId id, CallOptions call = {});
  /// Removes a member, also a dead one, also the leader, also this one (which then stops). No such member: success.
  /// Refused: the last voter. A change that would leave no majority of voters that are alive waits.
  [[nodiscard]] std::future<Result<void>> remove(NodeId id, CallOptions call = {});
  /// Removes `old` and adds `replacement` in one step, so that the cluster never has fewer voters. A replacement that
  /// is to vote is made a learner first and waited for.
  [[nodiscard]] std::future<Result<void>> replace(NodeId old, Member replacement, CallOptions call = {});
  /// Makes these, and nobody else, the members, in one step. New voters are made learners first and waited for.
  /// Member::joining is ignored. Refused: no voter, an id or address twice, an id that was removed, over 64.
  [[nodiscard]] std::future<Result<void>> change_members(std::vector<Member> members, CallOptions call = {});
  /// Makes `to` the leader, or any voter but the present leader. Commands go on, after a pause of some round trips.
  /// Refused: `to` is no voter, or there is no other.
  [[nodiscard]] std::future<Result<void>> transfer_leadership(std::optional<NodeId> to = std::nullopt,
                                                              CallOptions call = {});

  // ---- this member

  /// Gives the space of what was removed back to the file system: a copy of the database without its unused pages takes
  /// the place of the database file, while commands and reads go on (commands wait for some milliseconds now and then).
  /// Needs disk for the copy meanwhile, for what the log collects (at most Options::log_bytes_max), and for what
  /// changes in the old file. Of this member alone. Ready when it is done or given up, which leaves the database as it
  /// was; it has no deadline, and close() waits for a copy that is being made. ReadTxns that are open keep the old
  /// file's space until they end. Errors: in_use (one is under way), disk_full, too_many_readers, map_full, damaged,
  /// io_error, shutting_down, forked; stopped: this member stopped, or something came between, which the message names.
  /// Returns at once; from a completion or a command: ready with would_deadlock.
  [[nodiscard]] std::future<Result<void>> compact();

  Status status() const;
  /// Where the time goes, since this member was opened. Costs the reader some microseconds, and commands next to
  /// nothing.
  Metrics metrics() const;
  /// A hint: it may be outdated when the caller looks at it.
  bool is_leader() const;
  /// The leader as far as this member knows. A hint like is_leader().
  std::optional<Member> leader() const;

  /// The database's port, for services of the application (see stream.hpp). On a database without a port: dial only.
  StreamMux& streams();
  Result<void> service(Tag tag, StreamHandler handler) { return streams().service(tag, std::move(handler)); }

  /// A leader first hands over to another voter, for an election timeout at most. Then ends every outstanding call, and
  /// stops in order: port, proposals, log, apply, state. Snapshots still open stay valid, and keep the directory from
  /// being opened again; one that another thread opens at the same time is refused (closed) or one of them. Idempotent.
  /// From a completion or a command: would_deadlock.
  Result<void> close();

 private:
  explicit DB(std::shared_ptr<detail::DbImpl> impl);
  std::shared_ptr<detail::DbImpl> impl_;
};

}  // namespace flotilla
