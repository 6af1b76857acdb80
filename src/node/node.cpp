#include "node/node.hpp"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "base/log_sink.hpp"

namespace flotilla::node {
namespace {

constexpr std::size_t append_bytes_max = 1u << 20;
constexpr std::size_t frame_slack_bytes = 64u << 10;
constexpr std::int64_t ticks_per_heartbeat = 5;
/// A leader's disk may stand still for so many election timeouts before it yields: a slow sync is no reason to.
constexpr unsigned storage_stall_elections = 5;
constexpr unsigned quiet_ticks = ticks_per_heartbeat;
constexpr std::ptrdiff_t waiting_messages_max = 1024;
/// What a compacted copy applies at once, while commands wait.
constexpr std::size_t compaction_batches = 4;
/// Between two hand-overs of a leader that can take no commands: the others may be no better off.
constexpr Duration hand_over_pause_max = std::chrono::minutes(1);

Duration tick_interval_of(const NodeOptions& options) {
  return std::max<Duration>(options.heartbeat_interval / ticks_per_heartbeat, std::chrono::milliseconds(1));
}

raft::CoreOptions core_options(const NodeOptions& options) {
  const Duration tick = tick_interval_of(options);
  raft::CoreOptions core;
  core.id = options.node_id;
  core.seed = options.seed;
  core.election_ticks = static_cast<unsigned>(std::max<std::int64_t>(options.election_timeout / tick, 3));
  core.heartbeat_ticks = static_cast<unsigned>(std::max<std::int64_t>(options.heartbeat_interval / tick, 1));
  core.append_bytes_max = append_bytes_max;
  core.tail_bytes_max = options.log_cache_bytes;
  core.storage_stall_ticks = storage_stall_elections * core.election_ticks;
  return core;
}

}  // namespace

Node::Node(Parts parts, NodeOptions options, raft::Restored restored)
    : parts_(parts),
      options_(std::move(options)),
      tick_interval_(tick_interval_of(options_)),
      core_(core_options(options_), std::move(restored)),
      proposals_(parts.calls),
      reads_(options_.seed * 0x9e3779b97f4a7c15u >> 1),
      log_writer_(parts.loop, parts.log_executor, parts.log,
                  {.durable = [this](std::uint64_t sequence) { durable(sequence); },
                   .full = [this](const auto& why) { full(Space::Writer::log, why); },
                   .failed =
                       [this](const Error& error) {
                         fail_stop(Error(error.code(),
                                         "the log cannot be written: " + error.message() +
                                             "; nothing acknowledged is lost, restart the member when it is mended"));
                       }}),
      applier_(parts.loop, parts.apply_executor, parts.store, parts.calls, options_.batch,
               {.applied = [this](const Applier::Progress& progress) { applied(progress); },
                .full = [this](const auto& why) { full(Space::Writer::state, why); },
                .failed = [this](const Error& error) { fail_stop(error); }}),
      checkpoints_(parts.loop, parts.apply_executor, parts.checkpoint_executor, parts.store, options_.checkpoints,
                   options_.log_sink,
                   {.sync_log = log_syncer(),
                    .failed =
                        [this](const Error& error) {
                          fail_stop(Error(error.code(), "the database cannot be made durable: " + error.message() +
                                                            "; the log has all of it, restart the member when it is "
                                                            "mended"));
                        }}),
      compaction_({.loop = parts.loop,
                   .apply = parts.apply_executor,
                   .bulk = parts.bulk_executor,
                   .checkpoint = parts.checkpoint_executor,
                   .log_writer = log_writer_,
                   .applier = applier_,
                   .store = parts.store,
                   .directory = parts.directory},
                  {.reserve_bytes = options_.disk_reserve_bytes,
                   .slice = {compaction_batches * options_.batch.entries, compaction_batches * options_.batch.bytes}},
                  {.sync_log = log_syncer(),
                   .failed =
                       [this](const Error& error) {
                         fail_stop(Error(error.code(), "the compacted database may or may not be in force: " +
                                                           error.message() + "; nothing is lost, restart the member"));
                       }}),
      space_(parts.loop, parts.log_executor, parts.store, options_.space),
      changes_(make_changes()),
      applied_index_(parts.store.applied_index()) {}

Node::~Node() = default;

net::Hello Node::hello() const {
  return {options_.cluster_id, options_.node_id, options_.incarnation, options_.advertise};
}

net::FrameLimits Node::frame_limits() const {
  net::FrameLimits limits;
  limits.frame_bytes_max = options_.entry_bytes_max + append_bytes_max + frame_slack_bytes;
  limits.unsent_bytes_max = std::max(limits.unsent_bytes_max, 2 * limits.frame_bytes_max);
  return limits;
}

void Node::start() {
  if (!options_.advertise.empty()) {
    const auto limits = frame_limits();
    peers_ = std::make_unique<Peers>(
        parts_.loop, parts_.transport, parts_.mux,
        Peers::Options{.local = hello(), .limits = limits, .seed = options_.seed, .log_sink = options_.log_sink},
        Peers::Events{.message =
                          [this](raft::Message message) {
                            if (stopped_) return;
                            core_.step(std::move(message));
                            schedule();
                          },
                      .unreachable =
                          [this](NodeId peer) {
                            if (stopped_) return;
                            core_.unreachable(peer);
                            schedule();
                          }});
    forwarding_ = std::make_unique<Forwarding>(
        parts_.loop, parts_.transport, parts_.mux,
        Forwarding::Options{.local = hello(), .limits = limits, .seed = options_.seed, .log_sink = options_.log_sink},
        Forwarding::Events{
            .calls = [this](std::vector<ForwardedCall> calls) { return receive_calls(std::move(calls)); },
            .refused =
                [this](std::vector<Refusal> refusals) {
                  proposals_.refused(refusals);
                  schedule();
                },
            .link =
                [this](bool up) {
                  if (up) proposals_.place_again();
                  schedule();
                }});
    snapshot_sender_ = std::make_unique<SnapshotSender>(
        parts_.loop, parts_.bulk_executor, parts_.transport, parts_.store, parts_.directory,
        SnapshotSender::Options{.local = hello(),
                                .seed = options_.seed,
                                .reserve_bytes = options_.disk_reserve_bytes,
                                .log_sink = options_.log_sink},
        SnapshotSender::Events{.sent =
                                   [this](NodeId peer, const raft::SnapshotMeta& meta) {
                                     if (stopped_) return;
                                     core_.snapshot_sent(peer, meta);
                                     schedule();
                                   },
                               .failed =
                                   [this](NodeId peer) {
                                     if (stopped_) return;
                                     core_.snapshot_failed(peer);
                                     schedule();
                                   }});
    snapshot_receiver_ =
        std::make_unique<SnapshotReceiver>(parts_.loop, parts_.bulk_executor, parts_.mux, parts_.directory,
                                           SnapshotReceiver::Options{.local = hello(),
                                                                     .bytes_max = options_.snapshot_bytes_max,
                                                                     .reserve_bytes = options_.disk_reserve_bytes,
                                                                     .sync = options_.sync_state,
                                                                     .log_sink = options_.log_sink},
                                           SnapshotReceiver::Ask{
                                               .term = [this] { return core_.term(); },
                                               // A joiner knows nobody yet.
                                               .may_be_leader =
                                                   [this](NodeId id) {
                                                     const raft::Configuration& known = core_.configuration();
                                                     if (core_.leader_id()) return core_.leader_id() == id;
                                                     return known.members.empty() || known.contains(id);
                                                   },
                                           });
    admission_ = std::make_unique<Admission>(
        parts_.loop, parts_.mux, Admission::Options{.local = hello(), .limits = limits, .log_sink = options_.log_sink},
        Admission::Events{
            .join = [this](const Member& member, bool stranger) { return receive_join(member, stranger); },
            .change = [this](const Change& change) { return carry_out(change); }});
  }
  configuration_changed();
  open_session();
  const auto& members = core_.configuration().members;
  if (members.size() == 1 && members.front().id == options_.node_id) core_.campaign();
  tick_timer_ = parts_.loop.after(tick_interval_, [this] { tick(); });
  if (!belongs()) look_for_cluster();
  publish();
  schedule();
}

void Node::stop(const Error& why) {
  if (stopped_) return;
  stopped_ = true;
  why_stopped_ = why;
  if (tick_timer_ != 0) parts_.loop.cancel(tick_timer_);
  if (apply_timer_ != 0) parts_.loop.cancel(apply_timer_);
  checkpoints_.stop();
  compaction_.abort(Error(why.code(), "this member stopped before the compaction ended"));
  parts_.calls.refuse_new(why);
  take_incoming();
  proposals_.end_all(why);
  reads_.end_all(why);
  changes_.end_all(why);
  joiner_.reset();
  admission_.reset();
  snapshot_receiver_.reset();
  snapshot_sender_.reset();
  forwarding_.reset();
  peers_.reset();
  is_leader_.store(false, std::memory_order_release);
  {
    const std::lock_guard lock(status_mutex_);
    status_.compacting = false;
  }
  // Nobody is left waiting, whatever happened to the books above.
  for (Done& done : parts_.calls.take_all()) {
    done(fail(Errc::outcome_unknown, why.message() + "; a command that was sent before may yet take effect"));
  }
}

void Node::fail_stop(const Error& fault) {
  if (stopped_) return;
  log_line(options_.log_sink, LogLevel::error, "this member stops: {}", fault.message());
  {
    const std::lock_guard lock(status_mutex_);
    status_.fault = fault;
    status_.role = Role::follower;
    status_.leader.reset();
  }
  stop(Error(Errc::stopped, "this member stopped: " + fault.message()));
}

// ---- from any thread
// ------------------------------------------------------------------------------------------------------

template <class Request>
void Node::submit_to(std::vector<Request> Incoming::*queue, Request request) {
  bool schedule_it = false;
  {
    const std::lock_guard lock(incoming_mutex_);
    (incoming_.*queue).push_back(std::move(request));
    schedule_it = !std::exchange(incoming_scheduled_, true);
  }
  if (schedule_it) wake();
}

void Node::submit(Proposals::Call call) {
  submit_to(&Incoming::calls, std::move(call));
}
void Node::submit(Reads::Barrier barrier) {
  submit_to(&Incoming::barriers, std::move(barrier));
}
void Node::submit(Changes::Request change) {
  submit_to(&Incoming::changes, std::move(change));
}

void Node::submit(Compaction::Done compaction) {
  submit_to(&Incoming::compactions, std::move(compaction));
}

void Node::wake() {
  if (!loop_ended_.load(std::memory_order_acquire)) parts_.loop.post([this] { advance(); });
  // The loop may have ended between the two: then nobody else will look at what is queued.
  if (loop_ended_.load(std::memory_order_acquire)) end_incoming();
}

void Node::loop_ended() {
  loop_ended_.store(true, std::memory_order_release);
  end_incoming();
}

void Node::end_incoming() {
  Incoming incoming;
  {
    const std::lock_guard lock(incoming_mutex_);
    incoming = std::exchange(incoming_, {});
    incoming_scheduled_ = false;
  }
  for (Proposals::Call& call : incoming.calls) {
    if (auto done = parts_.calls.take(call.sequence)) (*done)(fail(why_stopped_));
  }
  Reads late(0);
  for (Reads::Barrier& barrier : incoming.barriers) late.add(std::move(barrier), applied_index_);
  late.end_all(why_stopped_);
  for (Changes::Request& change : incoming.changes) change.done(fail(why_stopped_));
  for (Compaction::Done& compaction : incoming.compactions) compaction(fail(why_stopped_));
}

Status Node::status() const {
  Status status;
  {
    const std::lock_guard lock(status_mutex_);
    status = status_;
  }
  status.applied_index = parts_.store.applied_index();
  // The state may be ahead of what the loop published: of a snapshot that was just installed.
  status.commit_index = std::max(status.commit_index, status.applied_index);
  status.pending_calls = parts_.calls.size();
  status.log_bytes = log_writer_.log_bytes();
  status.state_bytes = parts_.store.file_bytes();
  status.readers = parts_.store.readers();
  status.oldest_reader_age = parts_.store.oldest_reader_age();
  status.pinned_bytes = parts_.store.pinned_bytes();
  return status;
}

Metrics Node::metrics() const {
  Metrics metrics;
  metrics.queue = queue_.distribution();
  metrics.quorum = quorum_.distribution();
  log_writer_.report(metrics);
  applier_.report(metrics);
  return metrics;
}

std::optional<Member> Node::leader() const {
  const std::lock_guard lock(status_mutex_);
  return status_.leader;
}

// ---- the turn
// -------------------------------------------------------------------------------------------------------------

/// Everything that arrives in one turn of the loop is answered together.
void Node::schedule() {
  if (!std::exchange(scheduled_, true)) parts_.loop.post([this] { advance(); });
}

void Node::advance() {
  scheduled_ = false;
  take_incoming();
  if (stopped_) {
    proposals_.end_all(why_stopped_);
    reads_.end_all(why_stopped_);
    changes_.end_all(why_stopped_);
    return;
  }
  changes_.advance(core_, parts_.loop.now());
  place();
  reads_.request(core_);
  while (!stopped_ && core_.has_ready()) process(core_.take_ready());
  apply_stable();
  if (removed_) leave();
}

void Node::take_incoming() {
  Incoming incoming = std::exchange(taken_, {});  // what is called below may stop this member, which takes more
  {
    const std::lock_guard lock(incoming_mutex_);
    std::swap(incoming, incoming_);
    incoming_scheduled_ = false;
  }
  const Duration now = parts_.loop.now();
  for (Proposals::Call& call : incoming.calls) {
    queue_.add(now - call.begun);
    proposals_.add(std::move(call));
  }
  for (Reads::Barrier& barrier : incoming.barriers) reads_.add(std::move(barrier), applied_index_);
  for (Changes::Request& change : incoming.changes) changes_.add(std::move(change));
  for (Compaction::Done& compaction : incoming.compactions) compact(std::move(compaction));
  incoming.clear();
  taken_ = std::move(incoming);
}

void Node::place() {
  if (!proposals_.has_unplaced()) return;
  if (core_.role() == Role::leader) {
    command_sets_.update(core_.configuration(), parts_.store.nodes());
    proposals_.propose(core_, options_.wall_clock(), [this](std::string_view payload) {
      return space_.refusal() ? space_.refusal() : command_sets_.refuse(state::command_name(payload));
    });
  } else if (forwarding_) {
    proposals_.forward(*forwarding_, parts_.loop.now());
  }
}

void Node::process(raft::Ready ready) {
  if (peers_) {
    for (const raft::Message& message : ready.messages) peers_->send(message);
  }
  measure_quorum(ready);
  write(ready);
  std::move(ready.committed.begin(), ready.committed.end(), std::back_inserter(committed_));
  for (const raft::ReadState& read : ready.reads) reads_.answer(read, applied_index_);
  for (const raft::LogRead& wanted : ready.log_reads) read_log(wanted);
  for (const raft::SnapshotSend& wanted : ready.snapshot_sends) send_snapshot(wanted.peer);
  if (ready.snapshot_offer) install_snapshot(*ready.snapshot_offer);
  if (ready.configuration_changed) configuration_changed();
  if (ready.role_changed || ready.configuration_changed) role_changed();
  if (joiner_ && belongs() && core_.leader_id()) joiner_.reset();
  publish();
}

void Node::measure_quorum(const raft::Ready& ready) {
  if (core_.role() != Role::leader) return proposed_.clear();
  if (ready.entries.empty() && proposed_.empty()) return;
  const Duration now = parts_.loop.now();
  if (!ready.entries.empty()) proposed_.push_back({ready.entries.back().index, now});
  for (; !proposed_.empty() && proposed_.front().last <= core_.commit_index(); proposed_.pop_front()) {
    quorum_.add(now - proposed_.front().at);
  }
}

/// One that writes nothing waits with the newest that does: a disk may stand still for hours.
void Node::write(raft::Ready& ready) {
  if (!ready.must_write() && !unfinished_.empty()) {
    auto& waiting = unfinished_.back().messages_after_sync;
    std::move(ready.messages_after_sync.begin(), ready.messages_after_sync.end(), std::back_inserter(waiting));
    // As a network may: the members ask again.
    if (waiting.size() > waiting_messages_max) waiting.erase(waiting.begin(), waiting.end() - waiting_messages_max);
    return;
  }
  Unfinished unfinished{.sequence = ready.sequence,
                        .writes = ready.must_write(),
                        .term = {},
                        .index = {},
                        .messages_after_sync = std::move(ready.messages_after_sync)};
  if (!ready.entries.empty()) {
    unfinished.term = ready.entries.back().term;
    unfinished.index = ready.entries.back().index;
  }
  unfinished_.push_back(std::move(unfinished));
  if (ready.must_write()) {
    log_writer_.submit(
        {ready.sequence, ready.hard_state, std::move(ready.log_restart), std::move(ready.entries), ready.commit_index});
  }
  release_durable();
}

void Node::durable(std::uint64_t sequence) {
  if (stopped_) return;
  FLOTILLA_ASSERT(sequence > durable_sequence_);
  durable_sequence_ = sequence;
  release_durable();
  schedule();
}

/// A Ready is durable once its own write and all writes before it are.
void Node::release_durable() {
  while (!unfinished_.empty()) {
    if (unfinished_.front().writes && unfinished_.front().sequence > durable_sequence_) return;
    const Unfinished finished = std::move(unfinished_.front());
    unfinished_.pop_front();
    core_.persisted(finished.sequence, finished.term, finished.index);
    if (peers_) {
      for (const raft::Message& message : finished.messages_after_sync) peers_->send(message);
    }
  }
}

/// The state must not run ahead of the own log: a checkpoint of it may become durable at any time, and after a crash
/// the log has to reach it.
void Node::apply_stable() {
  if (stopped_ || committed_.empty()) return;
  const Index first = committed_.front().index;
  const Index stable = std::min(committed_.back().index, core_.stable_index());
  if (stable < first) return;
  const std::uint64_t count = stable - first + 1;
  const Duration now = parts_.loop.now();
  const Duration due = apply_begun_at_ + options_.apply_interval;
  if (now < due && count < options_.batch.entries && nobody_waits()) {
    if (apply_timer_ != 0) return;
    apply_timer_ = parts_.loop.after(due - now, [this] {
      apply_timer_ = 0;
      apply_stable();
    });
    return;
  }
  apply_begun_at_ = now;
  const auto end = committed_.begin() + static_cast<std::ptrdiff_t>(count);
  applier_.submit({std::make_move_iterator(committed_.begin()), std::make_move_iterator(end)});
  committed_.erase_front(static_cast<std::size_t>(count));
}

/// For what is applied here. Then there may be larger batches: a page that many of their commands change is written
/// once.
bool Node::nobody_waits() const {
  return proposals_.empty() && reads_.empty();
}

void Node::read_log(const raft::LogRead& wanted) {
  log_writer_.read(wanted.first_index, core_.term_at(wanted.first_index.previous()), wanted.bytes_max,
                   [this, peer = wanted.peer, first = wanted.first_index](LogWriter::Slice slice) {
                     if (stopped_) return;
                     core_.loaded(peer, first, slice.prev_term, std::move(slice.entries));
                     schedule();
                   });
}

void Node::applied(const Applier::Progress& progress) {
  // Entries that a snapshot included may be handed to apply after it.
  applied_index_ = std::max(applied_index_, progress.applied_index);
  checkpoints_.applied(progress.bytes);
  if (stopped_) return;
  core_.applied(applied_index_);
  if (!take_progress(progress)) return;
  schedule();
}

/// False: this member stopped.
bool Node::take_progress(const Applier::Progress& progress) {
  removed_ = removed_ || parts_.store.was_removed(options_.node_id);
  proposals_.forget(progress.ended);
  for (const Result<Bytes>& outcome : progress.session_outcomes) {
    if (!outcome && removed_) continue;  // that is why
    if (!outcome) {
      fail_stop(Error(Errc::stopped, "the session of this member was refused: " + outcome.error().message()));
      return false;
    }
    proposals_.session_opened();
  }
  reads_.applied(applied_index_);
  return true;
}

void Node::send_snapshot(NodeId peer) {
  const raft::Configuration& configuration = core_.configuration();
  const Member* member = configuration.find(peer);
  if (member == nullptr || member->address.empty() || !snapshot_sender_) return core_.snapshot_failed(peer);
  snapshot_sender_->send(*member, core_.term(), core_.facts().first_index);
}

void Node::install_snapshot(const raft::SnapshotOffer& offer) {
  auto received = snapshot_receiver_ ? snapshot_receiver_->take(offer.index) : std::nullopt;
  if (!received) return core_.snapshot_refused();
  applier_.install(parts_.directory, *received, [this, received = *received](Result<Applier::Progress> progress) {
    installed(received, std::move(progress));
  });
}

/// `done` runs on the loop.
void Node::compact(Compaction::Done done) {
  if (stopped_) return done(fail(why_stopped_));
  const std::uint64_t before = parts_.store.file_bytes();
  if (!compaction_.running()) {
    log_line(options_.log_sink, LogLevel::info, "compacting a database file of {} bytes", before);
  }
  compaction_.begin([this, before, done = std::move(done)](Result<void> result) {
    if (result) {
      log_line(options_.log_sink, LogLevel::info, "the database file has {} bytes instead of {}",
               parts_.store.file_bytes(), before);
    } else {
      log_line(options_.log_sink, LogLevel::warning, "the database was not compacted: {}", result.error().message());
    }
    done(std::move(result));
  });
}

void Node::installed(const state::Applied& received, Result<Applier::Progress> installed) {
  if (installed) {
    applied_index_ = received.index;
    compaction_.abort(Error(Errc::stopped, "a snapshot took the database's place, which is compact"));
  }
  if (stopped_) return;
  snapshot_receiver_->release();
  schedule();
  if (!installed) {
    log_line(options_.log_sink, LogLevel::warning, "the snapshot as of {} was not installed: {}", received.index.value,
             installed.error().message());
    return core_.snapshot_refused();
  }
  ++snapshots_installed_;
  log_line(options_.log_sink, LogLevel::info, "installed a snapshot as of {}", received.index.value);
  core_.snapshot_installed(meta_of(received));
  if (core_.commit_index() < received.index) {
    return fail_stop(Error(Errc::stopped, "the log cannot follow the snapshot that was installed"));
  }
  take_progress(*installed);
}

std::optional<SnapshotSender::Peer> Node::receiver_of_snapshot(NodeId id) const {
  const raft::Progress* progress = core_.progress(id);
  if (progress == nullptr) return std::nullopt;
  const Index matched = progress->match_index();
  return SnapshotSender::Peer{.needs_snapshot = progress->mode() == raft::ProgressMode::snapshot,
                              .lags = matched + options_.trailing_entries < applied_index_,
                              .matched = matched};
}

/// Keeps what a restart needs, what a slow follower may still need, and what those need that a snapshot is on its way
/// to.
void Node::trim_log() {
  if (snapshot_receiver_) snapshot_receiver_->tick();
  if (snapshot_sender_) {
    snapshot_sender_->tick([this](NodeId id) { return receiver_of_snapshot(id); });
    if (!snapshot_sender_->idle() && log_writer_.log_bytes() > options_.log_bytes_max) {
      snapshot_sender_->end_all("the log has reached Options::log_bytes_max while it was kept for it");
    }
  }
  if (compaction_.running() && log_writer_.log_bytes() > options_.log_bytes_max) {
    compaction_.abort(Error(Errc::stopped,
                            "the log has reached Options::log_bytes_max while it was kept; the database is as it was"));
  }
  const Index checkpoint = checkpoints_.index();
  if (checkpoint.value <= options_.trailing_entries) return;
  Index first{checkpoint.value - options_.trailing_entries};  // the checkpoint's own stays, for its term
  if (snapshot_sender_) {
    if (const auto needed = snapshot_sender_->first_needed()) first = std::min(first, *needed);
  }
  if (const auto needed = compaction_.first_needed()) first = std::min(first, *needed);
  if (first <= trim_wanted_) return;
  trim_wanted_ = first;
  log_writer_.trim(first, [this](Index left) {
    if (!stopped_) core_.trimmed(left);
  });
}

void Node::role_changed() {
  const Member* leader = find_leader();
  if (forwarding_) forwarding_->set_leader(leader);
  changes_.set_leader(leader);
  if (const Leadership now{core_.leader_id(), core_.term()}; now != placed_under_) {
    placed_under_ = now;
    proposals_.place_again();
  }
  is_leader_.store(core_.role() == Role::leader, std::memory_order_release);
  schedule();
}

void Node::configuration_changed() {
  const raft::Configuration& configuration = core_.configuration();
  if (peers_) {
    std::vector<Member> members = configuration.members;
    for (const Member& member : configuration.outgoing) {
      if (configuration.find(member.id) == nullptr) members.push_back(member);
    }
    peers_->set_members(members);
  }
}

/// As far as is known: a configuration that is not committed may yet vanish with the leader that wrote it. Then nobody
/// leads here, and tick() looks for the cluster again.
bool Node::belongs() const {
  const Member* self = core_.configuration().find(options_.node_id);
  return self != nullptr && self->address == options_.advertise;
}

const Member* Node::find_leader() const {
  const NodeId id = core_.leader_id();
  if (!id) return nullptr;
  const raft::Configuration& configuration = core_.configuration();
  if (const Member* member = configuration.find(id)) return member;
  const auto at = std::find_if(configuration.outgoing.begin(), configuration.outgoing.end(),
                               [&](const Member& member) { return member.id == id; });
  return at == configuration.outgoing.end() ? nullptr : &*at;
}

void Node::tick() {
  // One tick at a time: time this process spent blocked is not a leader's silence.
  tick_timer_ = parts_.loop.after(tick_interval_, [this] { tick(); });
  core_.tick();
  const bool leader_known = static_cast<bool>(core_.leader_id());
  proposals_.tick(parts_.loop.now(), leader_known);
  reads_.tick(parts_.loop.now(), leader_known);
  changes_.tick(parts_.loop.now(), leader_known);
  // It may have been removed, or all the others may have moved.
  ticks_without_leader_ = leader_known ? 0 : ticks_without_leader_ + 1;
  if (ticks_without_leader_ >= 2 * core_options(options_).election_ticks && !joiner_) look_for_cluster();
  maintain_members();
  checkpoints_.tick();
  sync_log();
  watch_space();
  trim_log();
  publish_progress();
  protect_log();
  advance();
}

/// The log or the state waits for space, or no more.
void Node::full(Space::Writer writer, const std::optional<Error>& why) {
  if (stopped_) return;
  const char* const what = writer == Space::Writer::log ? "log" : "database";
  if (!why) {
    log_line(options_.log_sink, LogLevel::info, "there is space again, the {} is written", what);
    return space_.set_full(writer, std::nullopt);
  }
  const Error waiting(Errc::disk_full,
                      fmt::format("the {} cannot be written: {}; nothing acknowledged is lost, what was accepted "
                                  "waits, and it goes on by itself when there is space again",
                                  what, why->message()));
  log_line(options_.log_sink, LogLevel::error, "{}", waiting.message());
  space_.set_full(writer, waiting);
}

/// A leader that can take no commands hands over to one that may.
void Node::watch_space() {
  space_.tick();
  if (space_.retry_due()) {
    log_writer_.retry();
    applier_.retry();
  }
  if (!space_.refusal()) hand_over_pause_ = options_.election_timeout;
  if (!space_.refusal() || core_.role() != Role::leader) {
    handed_over_at_ = parts_.loop.now();
    return;
  }
  if (parts_.loop.now() - handed_over_at_ < hand_over_pause_) return;
  handed_over_at_ = parts_.loop.now();
  hand_over_pause_ = std::min(2 * hand_over_pause_, hand_over_pause_max);
  Change over = Change::transfer(std::nullopt);
  over.id = options_.node_id;
  static_cast<void>(carry_out(over));
}

/// What has to run before a checkpoint counts. None where each group is synced by itself.
std::function<void(std::function<void()>)> Node::log_syncer() {
  if (!options_.sync_interval) return {};
  return [this](std::function<void()> then) { log_writer_.sync(std::move(then)); };
}

/// Where not each group is synced by itself.
void Node::sync_log() {
  if (!options_.sync_interval || parts_.loop.now() - synced_at_ < *options_.sync_interval) return;
  if (std::exchange(synced_sequence_, durable_sequence_) == durable_sequence_) return;
  synced_at_ = parts_.loop.now();
  log_writer_.sync([] {});
}

/// Once writing pauses, the last group gets an empty block behind it.
void Node::protect_log() {
  if (durable_sequence_ != seen_sequence_) {
    seen_sequence_ = durable_sequence_;
    ticks_since_write_ = 0;
  } else if (durable_sequence_ != 0 && ++ticks_since_write_ == quiet_ticks) {
    log_writer_.protect(core_.commit_index());
  }
}

void Node::publish() {
  const Member* leader = find_leader();
  const std::lock_guard lock(status_mutex_);
  status_.cluster_id = options_.cluster_id;
  status_.node_id = options_.node_id;
  status_.incarnation = options_.incarnation;
  status_.listen = parts_.mux.address();
  status_.role = core_.role();
  status_.term = core_.term();
  status_.commit_index = core_.commit_index();
  status_.last_index = core_.last_index();
  status_.stable_index = core_.stable_index();
  status_.first_index = core_.facts().first_index;
  status_.snapshots_installed = snapshots_installed_;
  if (status_.members != core_.configuration().members) status_.members = core_.configuration().members;
  if (leader == nullptr) {
    status_.leader.reset();
  } else if (!status_.leader || *status_.leader != *leader) {
    status_.leader = *leader;
  }
}

/// At each tick, so that the way of a command does not pay for it.
void Node::publish_progress() {
  std::vector<MemberProgress> progress;
  if (core_.role() == Role::leader) {
    for (const Member& line : core_.configuration().members) {
      const raft::Progress* known = core_.progress(line.id);
      if (known == nullptr) continue;
      const auto silent = std::chrono::duration_cast<std::chrono::milliseconds>(known->silent_ticks * tick_interval_);
      progress.push_back({line.id, known->match_index(), core_.caught_up(line.id), known->rolled_back, silent});
    }
  }
  const std::lock_guard lock(status_mutex_);
  status_.progress = std::move(progress);
  status_.checkpoint_index = checkpoints_.index();
  status_.compacting = compaction_.running();
  status_.refusing = space_.refusal();
}

// ---- what arrives
// ---------------------------------------------------------------------------------------------------------

void Node::open_session() {
  const state::SessionPayload session{options_.node_id, options_.incarnation, parts_.calls.session(),
                                      parts_.store.command_names()};
  proposals_.add(
      {.sequence = 0, .type = raft::EntryType::session, .payload = SharedBytes(state::encode_session(session))});
}

std::vector<Refusal> Node::receive_calls(std::vector<ForwardedCall> calls) {
  std::vector<Refusal> refusals;
  command_sets_.update(core_.configuration(), parts_.store.nodes());
  for (ForwardedCall& call : calls) {
    if (auto refusal = receive_call(call)) refusals.push_back(std::move(*refusal));
  }
  schedule();
  return refusals;
}

std::optional<Refusal> Node::receive_call(ForwardedCall& call) {
  const auto refuse = [&](Errc code, std::string message) -> std::optional<Refusal> {
    return Refusal{call.sequence, call.attempt, code, std::move(message)};
  };
  if (stopped_) return refuse(Errc::proposal_dropped, "the leader has stopped");
  if (call.remaining.count() == 0) return refuse(Errc::timeout, "the deadline passed on the way to the leader");
  if (call.type == raft::EntryType::command && call.payload.size() > options_.entry_bytes_max) {
    return refuse(Errc::entry_too_large, "the command is larger than the leader accepts");
  }
  if (call.type == raft::EntryType::command) {
    const auto command = state::decode_command(call.payload.view());
    if (!command) return refuse(Errc::invalid_argument, "the command is malformed");
    if (auto lacking = command_sets_.refuse(command->name)) return refuse(Errc::unknown_command, lacking->message());
    if (const auto& full = space_.refusal()) return refuse(Errc::disk_full, full->message());
  } else if (!state::decode_session(call.payload.view())) {
    return refuse(Errc::invalid_argument, "the session is malformed");
  }
  const auto position = core_.propose(call.type, std::move(call.payload), options_.wall_clock());
  if (position) return std::nullopt;
  const int code = position.error().code().value();
  return refuse(static_cast<Errc>(code), position.error().message());
}

JoinAnswer Node::receive_join(const Member& member, bool stranger) {
  const auto refuse = [&](Errc code, std::string message) {
    const Member* leader = find_leader();
    return JoinAnswer{Error(code, std::move(message)), {}, leader == nullptr ? Address() : leader->address};
  };
  if (stopped_) return refuse(Errc::not_leader, "this member has stopped");
  if (parts_.store.was_removed(member.id)) return {Error(Errc::removed), {}, {}};
  if (core_.role() != Role::leader) return refuse(Errc::not_leader, "this member does not lead");
  const Member* known = core_.configuration().find(member.id);
  if (stranger && known != nullptr && known->address != member.address) {
    return refuse(Errc::wrong_cluster, "a member of this id is at another address, and only a member may say it moved");
  }
  ChangeAnswer answer = carry_out(Change::join(member));
  using Verdict = ChangeAnswer::Verdict;
  if (answer.verdict == Verdict::done || answer.verdict == Verdict::appended) {
    return {std::nullopt, options_.cluster_id, {}};
  }
  return {std::move(answer.reason), {}, {}};
}

ChangeAnswer Node::carry_out(const Change& change) {
  if (stopped_) return {ChangeAnswer::Verdict::later, {}, Error(Errc::stopped)};
  schedule();
  return node::carry_out(change, {.core = core_,
                                  .store = parts_.store,
                                  .applied_index = applied_index_,
                                  .own_address = options_.advertise,
                                  .time = options_.wall_clock(),
                                  .patience_ticks = core_options(options_).election_ticks});
}

Changes Node::make_changes() {
  return Changes(
      {.local = options_.node_id, .ask_interval = options_.heartbeat_interval},
      {.carry_out = [this](const Change& change) { return carry_out(change); },
       .barrier =
           [this](Duration deadline, std::function<void(bool)> done) {
             auto ended = [done = std::move(done)](const Result<Index>& reached) { done(reached.has_value()); };
             reads_.add({.deadline = deadline, .done = std::move(ended), .at_least = {}}, applied_index_);
             schedule();
           },
       .connect =
           [this](const Member& leader) {
             net::Link::Options options{.tag = net::admin_tag,
                                        .address = leader.address,
                                        .local = hello(),
                                        .expected = leader.id,
                                        .limits = frame_limits(),
                                        .seed = options_.seed ^ (leader.id.value << 2),
                                        .log_sink = options_.log_sink};
             net::Link::Events events{
                 .up = [this](const net::Hello&) { changes_.link_up(); },
                 .frame = [this](net::ReceivedFrame frame) { changes_.receive(frame, parts_.loop.now()); },
                 .down = [this](const Error&) { changes_.link_lost(); }};
             return std::make_unique<net::Link>(parts_.loop, parts_.transport, std::move(options), std::move(events));
           },
       .ready = [this] { schedule(); }});
}

/// One change at a time.
void Node::maintain_members() {
  if (auto wanted = upkeep(core_, parts_.store, options_.advertise)) {
    static_cast<void>(core_.propose_configuration(std::move(*wanted), options_.wall_clock()));
  }
}

/// What it has applied says that this member belongs to the cluster no more. It goes once it has handed over what it
/// led and all of that was sent.
void Node::leave() {
  if (stopped_ || core_.role() == Role::leader) return;
  changes_.advance(core_, parts_.loop.now());
  removed(Error(Errc::removed));
}

void Node::removed(const Error& why) {
  if (stopped_) return;
  changes_.end_removed();
  fail_stop(Error(Errc::removed, why.message() + "; to come back it needs an empty directory"));
}

void Node::look_for_cluster() {
  if (options_.advertise.empty()) return;
  std::vector<Address> addresses = options_.join;
  for (const Member& member : core_.configuration().members) {
    if (member.id != options_.node_id) addresses.push_back(member.address);
  }
  if (addresses.empty()) return;
  joiner_ = std::make_unique<Joiner>(
      parts_.loop, parts_.transport,
      Joiner::Options{.local = hello(),
                      .as_learner = options_.join_as_learner,
                      .addresses = std::move(addresses),
                      .limits = frame_limits(),
                      .seed = options_.seed,
                      .log_sink = options_.log_sink},
      Joiner::Events{.admitted = [this](const ClusterId& cluster_id) { admitted(cluster_id); },
                     // Stopping drops the joiner, which is calling: so it comes a turn later.
                     .removed = [this](const Error& why) { parts_.loop.post([this, why] { removed(why); }); }});
}

void Node::admitted(const ClusterId& cluster_id) {
  if (stopped_ || options_.cluster_id == cluster_id) return;
  // fail_stop() drops the joiner, which is calling: so it comes a turn later.
  if (options_.cluster_id) {
    parts_.loop.post([this] {
      fail_stop(Error(Errc::wrong_cluster, "the cluster asked to join is not the one this directory belongs to"));
    });
    return;
  }
  if (auto kept = options_.keep_cluster_id(cluster_id); !kept) {
    parts_.loop.post([this, error = kept.error()] {
      if (error != Errc::disk_full) return fail_stop(error);
      log_line(options_.log_sink, LogLevel::error, "cannot join yet: {}", error.message());
      joiner_.reset();
      ticks_without_leader_ = 0;  // so that it is tried again
    });
    return;
  }
  options_.cluster_id = cluster_id;
  peers_->set_local(hello());
  forwarding_->set_local(hello());
  admission_->set_local(hello());
  snapshot_sender_->set_local(hello());
  snapshot_receiver_->set_local(hello());
  joiner_->set_local(hello());
  log_line(options_.log_sink, LogLevel::info, "admitted to cluster {:016x}{:016x}", cluster_id.high, cluster_id.low);
  publish();
}

}  // namespace flotilla::node
