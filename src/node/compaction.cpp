#include "node/compaction.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <filesystem>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/assert.hpp"

namespace flotilla::node {

namespace {

constexpr std::size_t chunk_bytes_min = 1u << 20;
constexpr std::size_t chunk_bytes_max = 64u << 20;

/// What is left is removed at the next start.
void remove_directory(const std::filesystem::path& directory) {
  std::error_code ignored;
  if (!directory.empty()) std::filesystem::remove_all(directory, ignored);
}

}  // namespace

struct Compaction::Run {
  Done done;
  std::filesystem::path made;
  std::atomic<bool> ended = false;
  // On the loop:
  Phase phase = Phase::catching_up;
  Index needed;                                                   ///< of the log
  std::uint64_t gap = std::numeric_limits<std::uint64_t>::max();  ///< entries, a round ago
  std::size_t chunk_bytes = chunk_bytes_min;                      ///< of the log, read at once
  std::uint64_t chunk_entries = 0;                                ///< in the newest one
  // On the apply executor, or on another while no task for it is under way:
  std::optional<state::Directory::Staged> staged;
  std::unique_ptr<state::Store> copy;
  std::shared_ptr<state::Store::NewCheckpoint> checkpoint;
  bool paused = false;
  bool fault = false;              ///< the error is one of the member
  std::filesystem::path replaced;  ///< nobody needs it any more
};

Compaction::Compaction(Parts parts, const Limits& limits, Events events)
    : parts_(parts), limits_(limits), events_(std::move(events)) {}

Compaction::~Compaction() {
  if (run_) run_->ended = true;
}

std::optional<Index> Compaction::first_needed() const {
  return run_ ? std::optional(run_->needed) : std::nullopt;
}

/// `work` on `executor`, then `then` on the loop; an error ends the run.
template <class Work, class Then>
void Compaction::on(Executor& executor, const std::shared_ptr<Run>& run, Work work, Then then) {
  executor.post([this, run, &loop = parts_.loop, work = std::move(work), then = std::move(then)]() mutable {
    if (run->ended) return;
    auto result = [&]() -> Result<void> {
      try {
        return work();
      } catch (const std::exception& thrown) {  // memory, or a broken invariant
        run->fault = true;
        return fail(Errc::stopped, thrown.what());
      }
    }();
    loop.post([this, run, result = std::move(result), then = std::move(then)]() mutable {
      if (run->ended) return;
      if (!result) return failed(run, result.error());
      then();
    });
  });
}

void Compaction::begin(Done done) {
  if (run_) return done(fail(Errc::in_use, "a compaction is under way; nothing was begun"));
  run_ = std::make_shared<Run>();
  run_->done = std::move(done);
  run_->needed = parts_.store.applied_index();
  run_->made = parts_.directory.compacted(++runs_);
  on(
      parts_.bulk, run_,
      [&store = parts_.store, made = run_->made, reserve = limits_.reserve_bytes] {
        return store.compact_to(made, reserve);
      },
      [this, run = run_] { open(run); });
}

void Compaction::open(const std::shared_ptr<Run>& run) {
  on(
      parts_.apply, run,
      [run, &directory = parts_.directory, &store = parts_.store]() -> Result<void> {
        auto staged = directory.stage(run->made);
        // After a failed sync nothing more is written (HOUSE 4).
        run->fault = !staged && staged.error() != Errc::disk_full;
        if (!staged) return fail(staged.error());
        run->staged = std::move(*staged);
        auto copy = store.open_compacted(run->staged->path);
        if (!copy) return fail(copy.error());
        run->copy = std::move(*copy);
        return {};
      },
      [this, run] { catch_up(run); });
}

/// Beside a database that goes on, it is enough to be near; while apply pauses, the goal stands still.
void Compaction::catch_up(const std::shared_ptr<Run>& run) {
  const Index applied = run->copy->applied_index();
  const Index goal = parts_.store.applied_index();
  const std::uint64_t gap = goal > applied ? goal - applied : 0;
  const bool paused = run->phase == Phase::paused;
  if (gap <= (paused ? 0 : limits_.slice.entries)) return caught_up(run);
  if (!paused && gap >= std::exchange(run->gap, gap)) {
    // As near as it gets, or too slow: the log is read between its groups, and the larger those are the less often.
    if (gap <= run->chunk_entries) return caught_up(run);
    run->chunk_bytes = std::min(2 * run->chunk_bytes, chunk_bytes_max);
  }
  // The term before is not asked for: the log may begin here.
  parts_.log_writer.read(applied.next(), Term{}, run->chunk_bytes, [this, run, goal](LogWriter::Slice slice) {
    if (run->ended) return;
    auto& entries = slice.entries;
    while (!entries.empty() && entries.back().index > goal) entries.pop_back();
    if (entries.empty()) return failed(run, Error(Errc::stopped, "the log no longer has what came after the copy"));
    run->chunk_entries = entries.size();
    apply(run, std::make_shared<const std::vector<raft::Entry>>(std::move(entries)), 0);
  });
}

/// A slice at a time: commands wait meanwhile.
void Compaction::apply(const std::shared_ptr<Run>& run, std::shared_ptr<const std::vector<raft::Entry>> chunk,
                       std::size_t from) {
  std::size_t end = from;
  for (std::size_t bytes = 0;
       end < chunk->size() && end - from < limits_.slice.entries && bytes < limits_.slice.bytes;) {
    bytes += raft::record_bytes((*chunk)[end++]);
  }
  on(
      parts_.apply, run,
      [run, chunk, from, end]() -> Result<void> {
        const auto outcomes = run->copy->apply(std::span(*chunk).subspan(from, end - from));
        if (!outcomes) return fail(outcomes.error());
        if (run->copy->applied_index() < (*chunk)[end - 1].index) return fail(Errc::disk_full, "no space for the copy");
        return {};
      },
      [this, run, chunk, end] {
        if (end < chunk->size()) return apply(run, chunk, end);
        catch_up(run);
      });
}

void Compaction::caught_up(const std::shared_ptr<Run>& run) {
  switch (run->phase) {
    case Phase::catching_up: return checkpoint(run);
    case Phase::checkpointed: return pause(run);
    case Phase::paused: return change_over(run);
  }
}

void Compaction::checkpoint(const std::shared_ptr<Run>& run) {
  on(
      parts_.apply, run,
      [run]() -> Result<void> {
        auto begun = run->copy->begin_checkpoint();
        if (!begun) return fail(begun.error());
        run->checkpoint = std::move(*begun);
        return {};
      },
      [this, run] {
        if (!events_.sync_log) return finish_checkpoint(run);
        events_.sync_log([this, run] {
          if (!run->ended) finish_checkpoint(run);
        });
      });
}

void Compaction::finish_checkpoint(const std::shared_ptr<Run>& run) {
  on(
      parts_.bulk, run,
      [run]() -> Result<void> {
        const auto done = run->copy->finish_checkpoint(*run->checkpoint, [run] { return run->ended.load(); });
        run->checkpoint.reset();
        if (!done) return fail(done.error());
        return {};
      },
      [this, run] {
        run->needed = run->copy->last_checkpoint().index;
        run->phase = Phase::checkpointed;
        run->gap = std::numeric_limits<std::uint64_t>::max();
        catch_up(run);
      });
}

void Compaction::pause(const std::shared_ptr<Run>& run) {
  on(
      parts_.apply, run,
      [run, &applier = parts_.applier]() -> Result<void> {
        applier.pause();
        run->paused = true;
        return {};
      },
      [this, run] {
        run->phase = Phase::paused;
        catch_up(run);
      });
}

void Compaction::change_over(const std::shared_ptr<Run>& run) {
  on(
      parts_.apply, run,
      [run, &directory = parts_.directory, &store = parts_.store]() -> Result<void> {
        // A snapshot that was installed meanwhile is as new, and compact.
        if (store.applied_index() != run->copy->applied_index()) {
          return fail(Errc::stopped, "a snapshot took the database's place");
        }
        const auto adopted = store.adopt(*run->copy, [&] { return directory.publish(*run->staged); });
        run->fault = !adopted && adopted.error() != Errc::disk_full;
        if (!adopted) return adopted;
        run->staged.reset();
        run->replaced = directory.replaced();
        return {};
      },
      [this, run] { end(run, {}); });
}

void Compaction::failed(const std::shared_ptr<Run>& run, const Error& error) {
  if (run->fault) events_.failed(error);
  if (!run->ended) end(run, fail(Error(error.code(), error.message() + "; the database is as it was")));
}

void Compaction::abort(const Error& why) {
  if (run_) end(run_, fail(why));
}

void Compaction::end(std::shared_ptr<Run> run, Result<void> result) {
  FLOTILLA_ASSERT(run == run_);
  run->ended = true;
  run_.reset();
  parts_.apply.post([run, &applier = parts_.applier] {
    if (run->paused && !run->fault) applier.go_on();
  });
  // Until apply has told of it, a change-over may still be under way there.
  std::filesystem::path replaced = result ? std::exchange(run->replaced, {}) : std::filesystem::path();
  // The copy goes after the task on the bulk executor that may be using it.
  parts_.bulk.post([run, replaced = std::move(replaced), &checkpoint = parts_.checkpoint, &apply = parts_.apply,
                    &directory = parts_.directory]() mutable {
    // After a checkpoint that may be on its way there.
    checkpoint.post([run, replaced = std::move(replaced), &apply, &directory] {
      remove_directory(replaced);
      apply.post([run, &directory] {
        run->checkpoint.reset();
        run->copy.reset();
        if (run->fault) return;
        remove_directory(run->made);
        remove_directory(run->replaced);  // by a change-over that the end did not wait for
        if (run->staged) directory.discard(*run->staged);
      });
    });
  });
  run->done(std::move(result));
}

}  // namespace flotilla::node
