#include "node/compaction.hpp"

#include <atomic>
#include <exception>
#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "base/assert.hpp"

namespace flotilla::node {
namespace {

/// Of the log at once: commands wait while they are applied to the copy.
constexpr std::size_t slice_bytes = 256u << 10;

}  // namespace

struct Compaction::Run {
  Done done;
  std::filesystem::path made;
  std::atomic<bool> ended = false;
  // On the loop:
  Phase phase = Phase::catching_up;
  Index needed;  ///< of the log
  // On the apply executor, and between tasks of it on the bulk one:
  std::optional<state::Directory::Staged> staged;
  std::unique_ptr<state::Store> copy;
  std::shared_ptr<state::Store::NewCheckpoint> checkpoint;
  bool paused = false;
  bool changing_over = false;
};

Compaction::Compaction(Parts parts, std::uint64_t reserve_bytes, Events events)
    : parts_(parts), reserve_bytes_(reserve_bytes), events_(std::move(events)) {}

Compaction::~Compaction() {
  if (run_) run_->ended = true;
}

std::optional<Index> Compaction::first_needed() const {
  return run_ ? std::optional(run_->needed) : std::nullopt;
}

/// `work` on `executor`, then `then` with what it returned on the loop; an error ends the run.
template <class Work, class Then>
void Compaction::on(Executor& executor, const std::shared_ptr<Run>& run, Work work, Then then) {
  executor.post([this, run, &loop = parts_.loop, work = std::move(work), then = std::move(then)]() mutable {
    if (run->ended) return;
    auto result = [&]() -> decltype(work()) {
      try {
        return work();
      } catch (const std::exception& thrown) {
        return fail(Errc::stopped, thrown.what());
      }
    }();
    loop.post([this, run, result = std::move(result), then = std::move(then)]() mutable {
      if (run->ended) return;
      if (!result) return end(run, fail(result.error()));
      then(std::move(result));
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
      [&store = parts_.store, made = run_->made, reserve = reserve_bytes_] { return store.compact_to(made, reserve); },
      [this, run = run_](const Result<Index>&) { open(run); });
}

void Compaction::open(const std::shared_ptr<Run>& run) {
  on(
      parts_.apply, run,
      [run, &directory = parts_.directory, &store = parts_.store]() -> Result<void> {
        auto staged = directory.stage(run->made);
        if (!staged) return fail(staged.error());
        run->staged = std::move(*staged);
        auto copy = store.open_compacted(run->staged->path);
        if (!copy) return fail(copy.error());
        run->copy = std::move(*copy);
        return {};
      },
      [this, run](const Result<void>&) { catch_up(run); });
}

void Compaction::catch_up(const std::shared_ptr<Run>& run) {
  const Index applied = run->copy->applied_index();
  const Index goal = parts_.store.applied_index();
  if (applied >= goal) return caught_up(run);
  // The term before is not asked for: the log may begin here.
  parts_.log_writer.read(applied.next(), Term{}, slice_bytes, [this, run, goal](LogWriter::Slice slice) {
    if (run->ended) return;
    while (!slice.entries.empty() && slice.entries.back().index > goal) slice.entries.pop_back();
    if (slice.entries.empty()) {
      return end(run, fail(Errc::stopped, "the log no longer has what came after the copy; the database is as it was"));
    }
    apply(run, std::move(slice.entries));
  });
}

void Compaction::apply(const std::shared_ptr<Run>& run, std::vector<raft::Entry> entries) {
  on(
      parts_.apply, run,
      [run, entries = std::move(entries)]() -> Result<void> {
        const auto outcomes = run->copy->apply(entries);
        if (!outcomes) return fail(outcomes.error());
        return {};
      },
      [this, run](const Result<void>&) { catch_up(run); });
}

void Compaction::caught_up(const std::shared_ptr<Run>& run) {
  switch (run->phase) {
    case Phase::catching_up: return checkpoint(run);
    case Phase::checkpointed: return pause(run);
    case Phase::paused: return change_over(run);
  }
}

void Compaction::checkpoint(const std::shared_ptr<Run>& run) {
  const auto finish = [this, run](const Result<void>&) {
    on(
        parts_.bulk, run,
        [run]() -> Result<void> {
          const auto done = run->copy->finish_checkpoint(*run->checkpoint, [run] { return run->ended.load(); });
          run->checkpoint.reset();
          if (!done) return fail(done.error());
          return {};
        },
        [this, run](const Result<void>&) {
          run->needed = run->copy->last_checkpoint().index;
          run->phase = Phase::checkpointed;
          catch_up(run);
        });
  };
  on(
      parts_.apply, run,
      [run]() -> Result<void> {
        auto begun = run->copy->begin_checkpoint();
        if (!begun) return fail(begun.error());
        run->checkpoint = std::move(*begun);
        return {};
      },
      finish);
}

void Compaction::pause(const std::shared_ptr<Run>& run) {
  on(
      parts_.apply, run,
      [run, &applier = parts_.applier]() -> Result<void> {
        applier.pause();
        run->paused = true;
        return {};
      },
      [this, run](const Result<void>&) {
        run->phase = Phase::paused;
        catch_up(run);
      });
}

void Compaction::change_over(const std::shared_ptr<Run>& run) {
  on(
      parts_.apply, run,
      [run, &applier = parts_.applier, &directory = parts_.directory, &store = parts_.store]() -> Result<void> {
        // A snapshot that was installed meanwhile is as new, and compact.
        if (store.applied_index() != run->copy->applied_index()) {
          return fail(Errc::stopped, "a snapshot took the database's place");
        }
        run->changing_over = true;
        if (auto adopted = store.adopt(*run->copy, [&] { return directory.publish(*run->staged); }); !adopted) {
          return adopted;
        }
        directory.remove_replaced();
        run->staged.reset();
        applier.go_on();
        run->paused = false;
        return {};
      },
      [this, run](const Result<void>&) {
        events_.replaced();
        end(run, {});
      });
}

void Compaction::abort(const Error& why) {
  if (run_) end(run_, fail(why));
}

void Compaction::end(std::shared_ptr<Run> run, Result<void> result) {
  FLOTILLA_ASSERT(run == run_);
  run->ended = true;
  run_.reset();
  // After the task that may be under way on the bulk executor, which uses the copy.
  const bool fault = !result && run->changing_over;
  parts_.bulk.post([run, &apply = parts_.apply, &applier = parts_.applier, &directory = parts_.directory, fault] {
    apply.post([run, &applier, &directory, fault] {
      run->checkpoint.reset();
      run->copy.reset();
      if (fault) return;
      std::error_code ignored;
      std::filesystem::remove_all(run->made, ignored);
      if (run->staged) directory.discard(*run->staged);
      if (run->paused) applier.go_on();
    });
  });
  if (fault) events_.failed(result.error());
  run->done(std::move(result));
}

}  // namespace flotilla::node
