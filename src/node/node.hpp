// One member: drives the consensus core, and ties links, log, apply and calls to it.
//
// It knows no thread, socket or clock of its own: everything runs on the loop it is given, and the log and apply
// executors are actors behind an interface. So the same code runs on threads in production and in one thread with
// virtual time in the simulator.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/executor.hpp"
#include "base/queue.hpp"
#include "flotilla/db.hpp"
#include "log/log.hpp"
#include "net/mux.hpp"
#include "net/transport.hpp"
#include "node/applier.hpp"
#include "node/calls.hpp"
#include "node/changes.hpp"
#include "node/checkpoints.hpp"
#include "node/command_sets.hpp"
#include "node/compaction.hpp"
#include "node/forwarding.hpp"
#include "node/log_writer.hpp"
#include "node/membership.hpp"
#include "node/peers.hpp"
#include "node/proposals.hpp"
#include "node/reads.hpp"
#include "node/snapshots.hpp"
#include "node/space.hpp"
#include "raft/core.hpp"
#include "state/directory.hpp"
#include "state/store.hpp"

namespace flotilla::node {

struct NodeOptions {
  ClusterId cluster_id;  ///< 0: not yet admitted anywhere
  NodeId node_id;
  std::uint64_t incarnation = 0;
  Address advertise;  ///< empty: no port, a cluster of one
  std::vector<Address> join;
  bool join_as_learner = false;
  std::uint64_t seed = 1;
  Duration election_timeout = std::chrono::milliseconds(1000);
  Duration heartbeat_interval = std::chrono::milliseconds(100);
  std::size_t entry_bytes_max = 8u << 20;
  Applier::Limits batch;
  Duration apply_interval = std::chrono::milliseconds(5);
  Checkpoints::Limits checkpoints{64u << 20, 256u << 20, std::chrono::seconds(30)};
  std::uint64_t trailing_entries = 16'384;  ///< below the checkpoint, that stay in the log
  std::size_t log_cache_bytes = 64u << 20;
  std::uint64_t log_bytes_max = std::uint64_t{8} << 30;  ///< past it, the log is not kept for snapshots under way
  std::uint64_t disk_reserve_bytes = 64u << 20;
  Space::Limits space;
  std::uint64_t snapshot_bytes_max = std::uint64_t{256} << 30;
  bool sync_state = true;  ///< see state::StoreOptions
  /// The log does not sync each group: so often it is told to. Nullopt: it does.
  std::optional<Duration> sync_interval;
  LogSink log_sink;
  /// Microseconds since the epoch, for the entries' time.
  std::function<std::uint64_t()> wall_clock;
  /// The cluster became known (a joiner was admitted): keep it durably before returning.
  std::function<Result<void>(const ClusterId&)> keep_cluster_id;
};

class Node {
 public:
  struct Parts {
    Loop& loop;
    Executor& log_executor;
    Executor& apply_executor;
    Executor& bulk_executor;        ///< copies, which may take long
    Executor& checkpoint_executor;  ///< so that checkpoints need not wait for those
    net::Transport& transport;
    net::Mux& mux;
    log::Log& log;
    state::Store& store;
    state::Directory& directory;
    Calls& calls;
  };
  /// Thread: loop, as for everything that does not say otherwise.
  Node(Parts parts, NodeOptions options, raft::Restored restored);
  ~Node();

  void start();
  /// Ends every call and drops every link. What was queued for log and apply may still run.
  void stop(const Error& why);
  /// A local fault: stops serving, keeps the reason for status(). Local reads go on.
  void fail_stop(const Error& fault);

  /// Requires: the loop runs no more task. Ends what was submitted too late for it.
  void loop_ended();

  /// Thread: any. The call was admitted by Calls; it ends through it.
  void submit(Proposals::Call call);
  void submit(Reads::Barrier barrier);
  void submit(Changes::Request change);
  /// Compacts the database.
  void submit(Compaction::Done compaction);
  /// Thread: any. A copy of what the loop published last.
  Status status() const;
  Metrics metrics() const;
  bool is_leader() const { return is_leader_.load(std::memory_order_acquire); }
  std::optional<Member> leader() const;
  /// Thread: loop. For those who judge a member from outside: the simulator.
  const raft::Core& core() const { return core_; }

 private:
  struct Incoming {
    std::vector<Proposals::Call> calls;
    std::vector<Reads::Barrier> barriers;
    std::vector<Changes::Request> changes;
    std::vector<Compaction::Done> compactions;

    /// Keeps the memory.
    void clear() {
      calls.clear();
      barriers.clear();
      changes.clear();
      compactions.clear();
    }
  };
  struct Unfinished {  ///< a Ready that is not durable yet
    std::uint64_t sequence = 0;
    bool writes = false;
    Term term;
    Index index;
    std::vector<raft::Message> messages_after_sync;
  };

  struct Proposed {
    Index last;
    Duration at;
  };
  struct Leadership {
    NodeId leader_id;
    Term term;
    friend bool operator==(const Leadership&, const Leadership&) = default;
  };

  template <class Request>
  void submit_to(std::vector<Request> Incoming::*queue, Request request);
  void wake();
  void end_incoming();
  void schedule();
  void advance();
  void take_incoming();
  void place();
  void process(raft::Ready ready);
  void measure_quorum(const raft::Ready& ready);
  void write(raft::Ready& ready);
  void durable(std::uint64_t sequence);
  void release_durable();
  void apply_stable();
  bool nobody_waits() const;
  void read_log(const raft::LogRead& wanted);
  void send_snapshot(NodeId peer);
  void install_snapshot(const raft::SnapshotOffer& offer);
  void compact(Compaction::Done done);
  void installed(const state::Applied& received, Result<Applier::Progress> installed);
  void trim_log();
  std::optional<SnapshotSender::Peer> receiver_of_snapshot(NodeId id) const;
  void applied(const Applier::Progress& progress);
  bool take_progress(const Applier::Progress& progress);
  void role_changed();
  void configuration_changed();
  void tick();
  void open_session();
  void maintain_members();
  void watch_space();
  void full(Space::Writer writer, const std::optional<Error>& why);
  void sync_log();
  std::function<void(std::function<void()>)> log_syncer();
  void protect_log();

  bool belongs() const;
  std::vector<Refusal> receive_calls(std::vector<ForwardedCall> calls);
  std::optional<Refusal> receive_call(ForwardedCall& call);
  JoinAnswer receive_join(const Member& member, bool stranger);
  ChangeAnswer carry_out(const Change& change);
  Changes make_changes();
  void leave();
  void removed(const Error& why);
  void admitted(const ClusterId& cluster_id);
  void look_for_cluster();
  net::Hello hello() const;
  net::FrameLimits frame_limits() const;
  const Member* find_leader() const;
  void publish();
  void publish_progress();

  Parts parts_;
  NodeOptions options_;
  const Duration tick_interval_;
  raft::Core core_;
  Proposals proposals_;
  CommandSets command_sets_;
  Reads reads_;
  LogWriter log_writer_;
  Applier applier_;
  std::unique_ptr<Peers> peers_;  // none without a port
  std::unique_ptr<Forwarding> forwarding_;
  std::unique_ptr<SnapshotSender> snapshot_sender_;
  std::unique_ptr<SnapshotReceiver> snapshot_receiver_;
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<Joiner> joiner_;
  Checkpoints checkpoints_;
  Compaction compaction_;
  Space space_;
  Changes changes_;

  Queue<Unfinished> unfinished_;
  std::uint64_t durable_sequence_ = 0;  ///< of the newest durable write
  Queue<raft::Entry> committed_;        ///< handed out by the core, not yet given to the applier
  Queue<Proposed> proposed_;            ///< of a leader, not committed yet
  Histogram queue_, quorum_;
  Duration apply_begun_at_{};  ///< when the applier got its newest entries
  Index applied_index_;
  Index trim_wanted_;  ///< asked of the log so far
  std::uint64_t snapshots_installed_ = 0;
  Leadership placed_under_;          ///< whose term the outstanding calls were last sent in
  std::uint64_t seen_sequence_ = 0;  ///< durable_sequence_ at the last tick
  unsigned ticks_since_write_ = 0;
  Duration handed_over_at_{};  ///< or not leading, or taking commands
  Duration hand_over_pause_{};
  Duration synced_at_{};
  std::uint64_t synced_sequence_ = 0;  ///< durable_sequence_ when the log was last told to sync
  unsigned ticks_without_leader_ = 0;
  Error why_stopped_{Errc::shutting_down, "the database was closed; the command was not sent"};
  bool scheduled_ = false;
  bool removed_ = false;  ///< what is applied says so
  bool stopped_ = false;
  Loop::TimerId tick_timer_ = 0;
  Loop::TimerId apply_timer_ = 0;  ///< 0: nothing is held back

  std::mutex incoming_mutex_;
  Incoming incoming_;                // guarded by incoming_mutex_
  Incoming taken_;                   // of the loop; empty, and changes places with incoming_
  bool incoming_scheduled_ = false;  // guarded by incoming_mutex_

  mutable std::mutex status_mutex_;
  Status status_;  // guarded by status_mutex_
  std::atomic<bool> is_leader_ = false;
  std::atomic<bool> loop_ended_ = false;
};

}  // namespace flotilla::node
