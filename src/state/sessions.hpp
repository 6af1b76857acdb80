// Sessions: which calls were applied already, and with what result (DESIGN 7; thesis 6.3).
//
// The rows in the reserved table are the truth; this is a cache of them with the changes of the batch that is running.
// A batch that aborts takes its changes along: the rows never had them, and the cache is read from the rows again.
//
// Thread: apply.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/queue.hpp"
#include "flotilla/error.hpp"
#include "raft/configuration.hpp"
#include "state/payload.hpp"
#include "state/rows.hpp"

namespace flotilla::state {

/// How a call ended, as every member remembers it.
struct StoredResult {
  std::uint64_t sequence = 0;
  std::uint16_t code = 0;  ///< 0: success; else an Errc
  std::string bytes;       ///< the result, or the error's message where it is the same on all members

  Result<Bytes> result() const;
};

struct Session {
  NodeId node_id;
  std::uint64_t incarnation = 0;
  std::uint64_t acknowledged_below = 1;
  Queue<StoredResult> results;  ///< Invariant: sequences ascend, and none is below acknowledged_below
  // Both without refusals.
  std::size_t count = 0;
  std::size_t bytes = 0;

  const StoredResult* find(std::uint64_t sequence) const;
  void store(StoredResult result);
  void acknowledge(std::uint64_t below);
};

std::string encode(const Session& session);
std::optional<Session> decode_session_row(std::string_view bytes);

/// What the log says of nodes, members or not.
struct Nodes {
  std::set<NodeId> removed;                             ///< all that ever were
  std::map<NodeId, std::vector<std::string>> commands;  ///< of those that opened a session: the names each has, sorted
};

class Sessions {
 public:
  static constexpr std::size_t results_max = 16'384;
  static constexpr std::size_t result_bytes_max = std::size_t{4} << 20;
  /// Results and session_full refusals together. A session that runs over it ends.
  static constexpr std::size_t answers_max = 65'536;

  /// Reads all rows. False: they are damaged. `code`: LMDB's.
  bool load(const Rows& rows, int& code);

  /// Applies a session entry: proposal_dropped, or an empty result.
  Result<Bytes> open(const SessionPayload& payload);
  /// Ends the sessions of members of `before` that are not in `after`, for ever: an id is not used again.
  void end_removed(const raft::Configuration& before, const raft::Configuration& after);
  Nodes nodes() const;
  /// Whether nodes() differs from what it was when the batch began.
  bool nodes_changed() const noexcept { return !changed_nodes_.empty(); }

  /// What is already decided about a command before it runs: its answer, or nullopt to run it. Forgets what the caller
  /// acknowledges. Session 0 is no session: every command of it runs.
  std::optional<Result<Bytes>> admit(const CommandPayload& command);
  /// Whether a result of that many bytes may be kept.
  bool fits(std::uint64_t session, std::size_t bytes) const;
  /// Keeps the outcome of a command that admit() let through. Requires: fits(), or an error.
  void store(const CallId& call, const Result<Bytes>& result, bool replicated_text);
  /// Keeps that the command was refused for ever because its session is full.
  Result<Bytes> refuse_full(const CallId& call);

  /// Writes the changed rows. LMDB's code.
  int write(const Rows& rows) const;
  /// The batch was committed.
  void committed() { changed_.clear(), changed_nodes_.clear(); }
  /// The batch was aborted: reads what it changed again, in another transaction. As load().
  bool roll_back(const Rows& rows, int& code);

  /// nullptr: not open.
  const Session* find(std::uint64_t session) const;

  std::size_t size() const noexcept { return sessions_.size(); }

 private:
  void end(std::uint64_t session);
  Session* find(std::uint64_t session);

  std::unordered_map<std::uint64_t, Session> sessions_;
  std::unordered_map<std::uint64_t, NodeRow> nodes_;
  // Sorted, so that every member writes its rows in the same order.
  std::set<std::uint64_t> changed_;
  std::set<std::uint64_t> changed_nodes_;
};

}  // namespace flotilla::state
