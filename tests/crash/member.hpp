// One member without a network: the real start, log writer, applier and store, and a caller that plays the core. It
// keeps to the order of steps that node.cpp keeps.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/executor.hpp"
#include "model.hpp"
#include "node/applier.hpp"
#include "node/calls.hpp"
#include "node/compaction.hpp"
#include "node/log_writer.hpp"
#include "node/start.hpp"

namespace crash {

/// Everything posted, one after the other, at a time that stands still.
class Queue final : public flotilla::Loop {
 public:
  void post(flotilla::Task task) override { tasks_.push_back(std::move(task)); }
  bool is_current() const override { return true; }
  flotilla::Duration now() const override { return {}; }
  TimerId after(flotilla::Duration, flotilla::Task) override { std::abort(); }
  void cancel(TimerId) override { std::abort(); }
  void run();

 private:
  std::deque<flotilla::Task> tasks_;
};

struct MemberOptions {
  std::filesystem::path data_dir;
  std::size_t segment_bytes = 8192;
  bool prepare_ahead = false;
  bool state_first = false;  ///< a planted fault: a checkpoint of entries before the log has them
};

class Member {
 public:
  Member(MemberOptions options, Truth& truth);
  ~Member();

  /// node::start() and no more. Marks `started`.
  flotilla::Result<void> start();
  /// As a killed process ends.
  void stop();
  bool running() const { return log_writer_ != nullptr; }

  flotilla::node::Started& started() { return *started_; }
  /// After stop() as it was then.
  std::uint64_t applied() const { return started_ ? started_->store->applied().index.value : applied_; }
  std::uint64_t last() const { return base_ + entries_.size(); }
  std::uint64_t last_term() const { return term_at(last()); }
  std::uint64_t term_at(std::uint64_t index) const;
  /// Of the log. Requires: above the applied index at the start.
  const flotilla::raft::Entry& entry(std::uint64_t index) const { return entries_.at(index - base_ - 1); }
  std::uint64_t known_commit() const { return commit_index_; }
  const flotilla::raft::HardState& hard_state() const { return hard_state_; }

  /// The next entry to append after `after` in the present term.
  flotilla::raft::Entry next(std::uint64_t after, flotilla::raft::EntryType type, std::string payload) const;
  /// Marks `promised` once it is durable. `entries` supersede what is there from their first index on.
  flotilla::Result<void> append(std::optional<flotilla::raft::HardState> hard_state,
                                std::vector<flotilla::raft::Entry> entries);
  /// Everything up to `index` is committed, and applied. Marks `committed`.
  flotilla::Result<void> commit(std::uint64_t index);
  /// Brings the state of the truth's last entry, which is above the committed index, as a snapshot.
  flotilla::Result<void> install();
  flotilla::Result<void> trim(std::uint64_t first);
  /// Begins a checkpoint, or finishes the one that was begun.
  flotilla::Result<void> checkpoint();
  /// What a restart needs not replay.
  std::uint64_t checkpoint_index() const { return started_->store->last_checkpoint().index.value; }
  /// As DB::close() ends.
  flotilla::Result<void> close();
  /// A copy on its way to another member.
  flotilla::Result<void> copy();
  /// An empty block, as an idle member writes.
  flotilla::Result<void> protect();
  /// Everything that is posted until end_compaction() comes between its steps.
  void begin_compaction();
  flotilla::Result<void> end_compaction();
  /// After disk_full, there being space again: what waits for it is written. Marks `promised`.
  flotilla::Result<void> go_on();

 private:
  flotilla::Result<void> outcome();
  flotilla::Result<void> receive(const flotilla::state::SnapshotCopy& copy);
  flotilla::Result<flotilla::state::SnapshotCopy> copy_of_truth() const;

  MemberOptions options_;
  Truth& truth_;
  Queue queue_;
  std::optional<flotilla::node::Started> started_;
  std::unique_ptr<flotilla::node::Calls> calls_;
  std::unique_ptr<flotilla::node::LogWriter> log_writer_;
  std::unique_ptr<flotilla::node::Applier> applier_;
  std::unique_ptr<flotilla::node::Compaction> compaction_;
  std::optional<flotilla::Result<void>> compacted_;
  std::shared_ptr<flotilla::state::Store::NewCheckpoint> checkpoint_;
  std::optional<flotilla::Error> fault_;
  std::optional<flotilla::Error> log_full_;
  std::optional<flotilla::Error> state_full_;

  std::uint64_t base_ = 0;  // of entries_: known from the state or from a snapshot
  std::uint64_t base_term_ = 0;
  std::vector<flotilla::raft::Entry> entries_;
  flotilla::raft::HardState hard_state_;
  std::uint64_t commit_index_ = 0;
  std::uint64_t sequence_ = 0;
  std::uint64_t durable_ = 0;
  std::uint64_t copies_ = 0;
  std::uint64_t applied_ = 0;  // at the last stop
};

flotilla::Options start_options(const MemberOptions& options);

}  // namespace crash
