// Changes that were asked for in this process: each is asked of the leader again and again until it is so, or its
// deadline passes. Frames, on the administration link (hello with the cluster's id):
//   3 change: u64 attempt, change (change.hpp)
//   4 answer: u64 attempt, u8 verdict (change.hpp), u64 term, u64 index, u32 Errc, message (u32 length, bytes)
//
// A change succeeds once this member knows it to be committed: by the position of its last entry, or, if the leader
// said that it was so already, by a barrier and a look at the own configuration.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "base/executor.hpp"
#include "net/link.hpp"
#include "node/change.hpp"

namespace flotilla::node {

inline constexpr std::uint8_t change_frame = 3;
inline constexpr std::uint8_t change_answer_frame = 4;

net::Frame change_answer_to_frame(std::uint64_t attempt, const ChangeAnswer& answer);

/// Thread: loop.
class Changes {
 public:
  struct Request {
    Change change;
    Duration deadline{};
    std::function<void(Result<void>)> done;  ///< runs once; on the loop
  };
  struct Options {
    NodeId local;
    Duration ask_interval = std::chrono::milliseconds(100);
  };
  struct Events {
    /// This member leads: takes the next step.
    std::function<ChangeAnswer(const Change&)> carry_out;
    /// Runs its argument once this member has applied all that was committed before; with false if it could not.
    std::function<void(Duration deadline, std::function<void(bool)>)> barrier;
    /// A link to the leader's administration, which hands its frames to receive() and its end to link_lost().
    std::function<std::unique_ptr<net::Link>(const Member& leader)> connect;
    /// Something may be done about a change now: call advance() in this turn of the loop or the next.
    std::function<void()> ready;
  };
  Changes(Options options, Events events) : options_(options), events_(std::move(events)) {}

  void add(Request request);
  /// Where changes are asked from now on; nullptr: nowhere known.
  void set_leader(const Member* leader);
  /// Does what can be done now: asks, and ends what is committed.
  void advance(const raft::Core& core, Duration now);
  /// Ends what is past its deadline. Once per tick.
  void tick(Duration now, bool leader_known);
  void receive(const net::ReceivedFrame& frame, Duration now);
  void link_up() { events_.ready(); }
  void link_lost();
  /// This member was removed: whoever wanted that has succeeded. Others see end_all().
  void end_removed();
  /// `unsent` for those that certainly had no effect, unknown for the others.
  void end_all(const Error& unsent);

 private:
  enum class Stage : std::uint8_t {
    waiting,     ///< to be asked at ask_at
    asked,       ///< sent, no answer yet
    appended,    ///< in the leader's log at `position`
    confirming,  ///< done, the leader said; the barrier is under way
    confirmed,   ///< and came back
  };
  struct Pending {
    Request request;
    Stage stage = Stage::waiting;
    Duration ask_at{};
    std::uint64_t attempt = 0;  ///< the newest
    raft::Core::Position position;
    Term asked_in;                                                       ///< transfer: the term when it was called
    bool may_take_effect = false;                                        ///< something of it was done, or may have been
    Error reason{Errc::overloaded, "it was not asked of a leader yet"};  ///< why it is not done
    std::optional<Result<void>> ended;
  };
  using Pendings = std::map<std::uint64_t, Pending>;

  void ask(std::uint64_t id, Pending& pending, bool leads, Duration now);
  void answered(std::uint64_t id, Pending& pending, const ChangeAnswer& answer, Duration now);
  void confirm(std::uint64_t id, Pending& pending);
  void settle(Pending& pending, const raft::Core& core);
  static bool is_committed(Pending& pending, const raft::Core& core);
  static bool is_handed_over(const Pending& pending, const raft::Core& core);
  Pendings::iterator end(Pendings::iterator at, Result<void> result);

  const Options options_;
  Events events_;
  Pendings pending_;
  std::uint64_t last_id_ = 0;
  std::uint64_t last_attempt_ = 0;
  std::optional<Member> leader_;
  std::unique_ptr<net::Link> link_;  ///< to leader_, while something is to be asked
};

}  // namespace flotilla::node
