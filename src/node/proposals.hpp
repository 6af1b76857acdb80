// Calls of this process on their way into the log, as the loop sees them: which copies are out, and what is certain
// about each.
//
// A call may be sent more than once (to a new leader, over a new link), always under the same id, so it takes effect
// once. A copy is *unsettled* from its sending until a refusal of exactly that copy. A call is refused only while no
// copy is unsettled; else it ends with its result or, at its deadline, as unknown.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <queue>
#include <string_view>
#include <vector>

#include "base/executor.hpp"
#include "base/window.hpp"
#include "node/calls.hpp"
#include "node/forwarding.hpp"
#include "raft/core.hpp"

namespace flotilla::node {

/// Thread: loop.
class Proposals {
 public:
  struct Call {
    std::uint64_t sequence = 0;  ///< 0: the session's own opening
    raft::EntryType type = raft::EntryType::command;
    SharedBytes payload;
    Duration begun{};
    Duration deadline{};
    std::uint64_t attempt = 0;
    unsigned unsettled_copies = 0;
  };
  explicit Proposals(Calls& calls) : calls_(calls) {}

  void add(Call call);
  /// The leader, its term or the link to it changed: everything must be sent (again).
  void place_again();
  /// Appends what is unplaced to the own log, as leader. `refuse`: why a leader must not take this command.
  using Refuse = std::function<std::optional<Error>(std::string_view payload)>;
  void propose(raft::Core& core, std::uint64_t time, const Refuse& refuse);
  /// Sends what is unplaced to the leader.
  void forward(Forwarding& forwarding, Duration now);
  void refused(const std::vector<Refusal>& refusals);
  /// Calls that ended elsewhere (with their results).
  void forget(const std::vector<std::uint64_t>& sequences);
  /// Until the session is open only its own opening is sent.
  void session_opened();
  /// Ends what is past its deadline, and tries again what was refused for the moment.
  void tick(Duration now, bool leader_known);
  /// Ends everything: `unsent` for calls without an unsettled copy, unknown for the others.
  void end_all(const Error& unsent);
  bool has_unplaced() const { return !unplaced_.empty(); }
  bool empty() const { return all_.empty() && !opening_; }

 private:
  void add_deadline(Duration deadline, std::uint64_t sequence);
  void end(Call& call, Error error);
  void refused(std::uint64_t sequence, Error error);
  Call* find(std::uint64_t sequence);
  void take_sendable();
  void put_back(std::size_t first);

  Calls& calls_;
  std::optional<Call> opening_;  ///< of the session: sequence 0
  /// The others. Calls whose results the loop has not heard of yet are among them, so that they are a few times
  /// outstanding_max apart at most.
  Window<Call> all_;
  std::vector<std::uint64_t> unplaced_;  ///< in order of sending; may name calls that ended
  std::vector<std::uint64_t> sending_;   ///< taken from unplaced_; empty between two turns
  std::vector<std::uint64_t> later_;     ///< refused for now; unplaced again at the next tick
  bool session_open_ = false;
  using Deadline = std::pair<Duration, std::uint64_t>;
  std::priority_queue<Deadline, std::vector<Deadline>, std::greater<>> deadlines_;
};

}  // namespace flotilla::node
