#include "member.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "recorder.hpp"
#include "state/snapshot.hpp"

namespace crash {

using flotilla::fail;
using flotilla::Index;
using flotilla::Result;
using flotilla::Term;
namespace node = flotilla::node;
namespace raft = flotilla::raft;
namespace state = flotilla::state;

namespace {
constexpr std::size_t chunk_bytes = 16u << 10;
constexpr std::size_t map_bytes = 64u << 20;
}  // namespace

void Queue::run() {
  while (!tasks_.empty()) {
    flotilla::Task task = std::move(tasks_.front());
    tasks_.pop_front();
    task();
  }
}

flotilla::Options start_options(const MemberOptions& options) {
  flotilla::Options start;
  start.data_dir = options.data_dir;
  start.segment_bytes = options.segment_bytes;
  start.map_size = map_bytes;
  start.readers_max = 8;
  start.log_sink = [](flotilla::LogLevel, std::string_view) {};
  return start;
}

Member::Member(MemberOptions options, Truth& truth) : options_(std::move(options)), truth_(truth) {}
Member::~Member() {
  stop();
}

Result<void> Member::start() {
  stop();
  Recorder::mark(MarkKind::starting);
  auto started =
      node::start({.files = flotilla::log::posix_file_system(), .random = 7, .prepare_ahead = options_.prepare_ahead},
                  start_options(options_), commands());
  if (!started) return fail(started.error());
  Recorder::mark(MarkKind::started, started->identity.incarnation, started->log->recovered().blocks);
  started_.emplace(std::move(*started));
  const raft::Restored& restored = started_->restored;
  base_ = restored.base_index.value;
  base_term_ = restored.base_term.value;
  entries_ = restored.entries;
  hard_state_ = restored.hard_state;
  commit_index_ = restored.commit_index.value;
  fault_.reset();
  log_full_.reset();
  state_full_.reset();
  sequence_ = durable_ = 0;
  calls_ = std::make_unique<node::Calls>(1, node::Calls::Limits{1u << 20, 100});
  log_writer_ = std::make_unique<node::LogWriter>(
      queue_, queue_, *started_->log,
      node::LogWriter::Events{.durable = [this](std::uint64_t sequence) { durable_ = sequence; },
                              .full = [this](const auto& why) { log_full_ = why; },
                              .failed = [this](const flotilla::Error& error) { fault_ = error; }});
  applier_ = std::make_unique<node::Applier>(
      queue_, queue_, *started_->store, *calls_, node::Applier::Limits{16, 64u << 10},
      node::Applier::Events{.applied = [](const node::Applier::Progress&) {},
                            .full = [this](const auto& why) { state_full_ = why; },
                            .failed = [this](const flotilla::Error& error) { fault_ = error; }});
  compaction_ = std::make_unique<node::Compaction>(
      node::Compaction::Parts{.loop = queue_,
                              .apply = queue_,
                              .bulk = queue_,
                              .checkpoint = queue_,
                              .log_writer = *log_writer_,
                              .applier = *applier_,
                              .store = *started_->store,
                              .directory = *started_->directory},
      node::Compaction::Limits{.reserve_bytes = 0, .slice = {2, 64u << 10}},
      node::Compaction::Events{.sync_log = {}, .failed = [this](const flotilla::Error& error) { fault_ = error; }});
  return {};
}

void Member::stop() {
  queue_.run();
  compaction_.reset();
  applier_.reset();
  log_writer_.reset();
  if (!started_) return;
  applied_ = applied();
  checkpoint_.reset();
  started_->store.reset();
  started_->log.reset();
  started_.reset();
}

/// Of what was posted.
Result<void> Member::outcome() {
  queue_.run();
  for (const auto& why : {fault_, log_full_, state_full_}) {
    if (why) return fail(*why);
  }
  return {};
}

Result<void> Member::go_on() {
  log_writer_->retry();
  applier_->retry();
  if (auto done = outcome(); !done) return done;
  FLOTILLA_ASSERT(durable_ == sequence_);
  Recorder::mark(MarkKind::promised);
  return {};
}

std::uint64_t Member::term_at(std::uint64_t index) const {
  if (index == base_) return base_term_;
  if (index > base_ && index <= last()) return entries_[index - base_ - 1].term.value;
  return index == 0 || index > truth_.last() ? 0 : truth_.entry(index).term.value;
}

raft::Entry Member::next(std::uint64_t after, raft::EntryType type, std::string payload) const {
  raft::Entry entry{.term = hard_state_.term,
                    .index = Index{after + 1},
                    .type = type,
                    .time = 1'000'000 + after,
                    .payload = flotilla::SharedBytes(std::move(payload))};
  raft::seal(entry);
  return entry;
}

Result<void> Member::append(std::optional<raft::HardState> hard_state, std::vector<raft::Entry> entries) {
  if (hard_state) hard_state_ = *hard_state;
  if (!entries.empty()) {
    const std::uint64_t from = entries.front().index.value;
    FLOTILLA_ASSERT(from > base_ && from <= last() + 1 && from > commit_index_);
    entries_.resize(from - base_ - 1);
    entries_.insert(entries_.end(), entries.begin(), entries.end());
    if (options_.state_first && from == truth_.last() + 1) {
      if (auto done = commit(last()); !done) return done;
      if (auto done = started_->store->checkpoint(); !done) return done;
    }
  }
  log_writer_->submit({++sequence_, hard_state, std::nullopt, std::move(entries), Index{commit_index_}});
  if (auto done = outcome(); !done) return done;
  FLOTILLA_ASSERT(durable_ == sequence_);
  Recorder::mark(MarkKind::promised);
  return {};
}

Result<void> Member::commit(std::uint64_t index) {
  if (index > commit_index_) {
    FLOTILLA_ASSERT(index <= last());
    commit_index_ = index;
  }
  for (std::uint64_t i = truth_.last() + 1; i <= commit_index_; ++i) {
    if (i > base_) {
      truth_.add(entry(i));
      continue;
    }
    // Of a first start, which applied it itself.
    const auto read = started_->log->read(Index{i}, 1);
    if (!read) return fail(read.error());
    truth_.add(read->front());
  }
  Recorder::mark(MarkKind::committed, commit_index_);
  std::vector<raft::Entry> entries;
  for (std::uint64_t i = applied() + 1; i <= commit_index_; ++i) entries.push_back(entry(i));
  if (!entries.empty()) applier_->submit(std::move(entries));
  return outcome();
}

// ---- snapshots

/// As the leader's store would make it: from the committed entries alone.
Result<state::SnapshotCopy> Member::copy_of_truth() const {
  const std::filesystem::path directory = options_.data_dir.parent_path().string() + ".leader";
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  auto copy = [&]() -> Result<state::SnapshotCopy> {
    state::StoreOptions options;
    options.directory = directory / "state";
    options.map_size = map_bytes;
    options.readers_max = 8;
    options.sync = false;
    auto store = state::Store::open(options, commands());
    if (!store) return fail(store.error());
    std::vector<raft::Entry> entries;
    for (std::uint64_t i = 1; i <= truth_.last(); ++i) entries.push_back(truth_.entry(i));
    if (auto applied = (*store)->apply(entries); !applied) return fail(applied.error());
    return (*store)->copy(directory / "copy");
  }();
  std::filesystem::remove_all(directory, ignored);
  return copy;
}

Result<void> Member::receive(const state::SnapshotCopy& copy) {
  auto writer = state::SnapshotWriter::create(
      {.directory = started_->directory->incoming(), .bytes = copy.bytes(), .hash = copy.hash(), .sync = true});
  if (!writer) return fail(writer.error());
  while (writer->written() < copy.bytes()) {
    const auto bytes = copy.read(writer->written(), chunk_bytes);
    if (!bytes) return fail(bytes.error());
    if (auto written = writer->write(*bytes); !written) return written;
  }
  const auto received = writer->finish();
  if (!received) return fail(received.error());
  FLOTILLA_ASSERT(received->index.value == truth_.last());
  return {};
}

Result<void> Member::install() {
  const std::uint64_t index = truth_.last();
  FLOTILLA_ASSERT(index > commit_index_);
  const auto copy = copy_of_truth();
  if (!copy) return fail(copy.error());
  Recorder::mark(MarkKind::committed, index);
  if (auto received = receive(*copy); !received) return received;
  const state::Applied& applied = copy->applied();
  Recorder::mark(MarkKind::installing, index, applied.term.value);
  std::optional<Result<node::Applier::Progress>> installed;
  applier_->install(*started_->directory, applied,
                    [&](Result<node::Applier::Progress> progress) { installed = std::move(progress); });
  if (auto done = outcome(); !done) return done;
  if (!*installed) return fail(installed->error());
  Recorder::mark(MarkKind::installed, index);
  commit_index_ = index;
  if (index <= last() && term_at(index) == applied.term.value) return {};  // the log goes on
  // The core would first take over a higher term, then begin its log anew.
  std::optional<raft::HardState> hard_state;
  if (applied.term > hard_state_.term) hard_state = hard_state_ = raft::HardState{applied.term, {}};
  base_ = index;
  base_term_ = applied.term.value;
  entries_.clear();
  log_writer_->submit({++sequence_,
                       hard_state,
                       raft::SnapshotMeta{applied.index, applied.term, applied.configuration,
                                          applied.configuration_index, applied.time},
                       {},
                       Index{commit_index_}});
  if (auto done = outcome(); !done) return done;
  Recorder::mark(MarkKind::promised);
  return {};
}

Result<void> Member::trim(std::uint64_t first) {
  log_writer_->trim(Index{first}, [](Index) {});
  return outcome();
}

Result<void> Member::checkpoint() {
  if (checkpoint_) {
    const auto begun = std::exchange(checkpoint_, nullptr);
    return started_->store->finish_checkpoint(*begun, [] { return true; }).map([](Index) {});
  }
  auto begun = started_->store->begin_checkpoint();
  if (!begun) return fail(begun.error());
  checkpoint_ = std::move(*begun);
  return {};
}

Result<void> Member::close() {
  checkpoint_.reset();
  auto done = started_->store->checkpoint();
  stop();
  return done;
}

Result<void> Member::copy() {
  auto copy = started_->store->copy(started_->directory->outgoing(++copies_));
  if (!copy) return fail(copy.error());
  return {};
}

void Member::begin_compaction() {
  compacted_.reset();
  compaction_->begin([this](Result<void> result) { compacted_ = std::move(result); });
}

Result<void> Member::end_compaction() {
  if (auto done = outcome(); !done) return done;
  FLOTILLA_ASSERT(compacted_);
  return *compacted_;
}

Result<void> Member::protect() {
  log_writer_->protect(Index{commit_index_});
  return outcome();
}

}  // namespace crash
