#include "node/applier.hpp"

#include <exception>
#include <iterator>
#include <utility>

#include "base/assert.hpp"

namespace flotilla::node {
namespace {

constexpr std::size_t told_together = 32;

}  // namespace

Applier::Applier(Loop& loop, Executor& executor, state::Store& store, Calls& calls, Limits limits, Events events)
    : loop_(loop), executor_(executor), store_(store), calls_(calls), limits_(limits), events_(std::move(events)) {}

void Applier::submit(std::vector<raft::Entry> entries) {
  if (entries.empty()) return;
  const Duration now = loop_.now();
  bool schedule = false;
  {
    const std::lock_guard lock(mutex_);
    submitted_.push_back({entries.back().index, now});
    std::move(entries.begin(), entries.end(), std::back_inserter(queued_));
    schedule = !std::exchange(scheduled_, true);
  }
  if (schedule) executor_.post([this] { drain(); });
}

void Applier::take_batch() {
  std::size_t bytes = 0;
  const std::lock_guard lock(mutex_);
  while (!queued_.empty() && batch_.size() < limits_.entries && bytes < limits_.bytes) {
    bytes += queued_.front().payload.size();
    batch_.push_back(std::move(queued_.front()));
    queued_.pop_front();
  }
  if (batch_.empty()) {
    scheduled_ = false;
    return;
  }
  wait_.add(loop_.now() - submitted_.front().at);
  while (!submitted_.empty() && submitted_.front().last <= batch_.back().index) submitted_.pop_front();
}

/// One batch, so that whatever else was posted comes between two.
void Applier::drain() {
  if (failed_ || paused_) return;
  if (batch_.empty()) take_batch();
  if (batch_.empty()) return;
  const auto applied = apply();
  if (!applied && applied.error() != Errc::disk_full) return end(applied.error());
  const bool was_full = std::exchange(full_, !applied);
  if (full_ != was_full) {
    loop_.post([this, why = applied ? std::nullopt : std::optional(applied.error())] { events_.full(why); });
  }
  if (applied) executor_.post([this] { drain(); });
}

void Applier::retry() {
  if (retrying_.exchange(true)) return;
  executor_.post([this] {
    retrying_ = false;
    if (full_) drain();
  });
}

void Applier::go_on() {
  paused_ = false;
  executor_.post([this] { drain(); });
}

Result<std::vector<state::Outcome>> Applier::apply_to_store() {
  try {
    return store_.apply(batch_);
  } catch (const std::exception& thrown) {  // memory, or a broken invariant: apply is over
    return fail(Errc::stopped, std::string("applying failed: ") + thrown.what());
  }
}

/// The batch, or a first part of it: what is left stays in `batch_`.
Result<void> Applier::apply() {
  const Duration begun = loop_.now();
  auto outcomes = apply_to_store();
  if (!outcomes) return fail(outcomes.error());
  const Duration applied = loop_.now();
  apply_.add(applied - begun);
  progress_.clear();
  progress_.applied_index = store_.applied().index;
  auto rest = batch_.begin();
  for (; rest != batch_.end() && rest->index <= progress_.applied_index; ++rest) {
    progress_.bytes += raft::record_bytes(*rest);
  }
  entries_.fetch_add(static_cast<std::uint64_t>(rest - batch_.begin()), std::memory_order_relaxed);
  batch_.erase(batch_.begin(), rest);
  for (auto at = outcomes->begin(); at != outcomes->end();) {
    // Callers may begin their next call at once: not each of these needs a turn of the loop.
    const HoldWakes hold(loop_);
    for (std::size_t told = 0; at != outcomes->end() && told < told_together; ++at, ++told)
      end_call(*at, applied, progress_);
  }
  if (!progress_.ended.empty()) completion_.add(loop_.now() - applied);
  tell();
  return {};
}

/// Of this process, if it is still waited for.
void Applier::end_call(state::Outcome& outcome, Duration now, Progress& progress) {
  if (outcome.call.session != calls_.session()) return;
  if (outcome.call.sequence == 0) {
    progress.session_outcomes.push_back(std::move(outcome.result));
  } else if (auto done = calls_.take(outcome.call.sequence)) {
    command_.add(now - done->begun);
    (*done)(std::move(outcome.result));
    progress.ended.push_back(outcome.call.sequence);
  }
}

void Applier::report(Metrics& metrics) const {
  metrics.apply_wait = wait_.distribution();
  metrics.apply = apply_.distribution();
  metrics.completion = completion_.distribution();
  metrics.command = command_.distribution();
  metrics.applied_entries = entries_.load(std::memory_order_relaxed);
}

void Applier::end(const Error& error) {
  failed_ = true;
  loop_.post([this, error] { events_.failed(error); });
}

void Applier::install(state::Directory& directory, const state::Applied& received, Installed done) {
  executor_.post([this, &directory, received, done = std::move(done)]() mutable {
    if (failed_) return;
    bool half_way = false;
    auto installed = install_now(directory, received, half_way);
    if (!installed && half_way) return end(installed.error());
    loop_.post([done = std::move(done), installed = std::move(installed)]() mutable { done(std::move(installed)); });
  });
}

Result<Applier::Progress> Applier::install_now(state::Directory& directory, const state::Applied& received,
                                               bool& half_way) {
  try {
    const auto staged = directory.stage(directory.incoming());
    // After a failed sync nothing more is written (HOUSE 4).
    if (!staged) half_way = staged.error() != Errc::disk_full;
    if (!staged) return fail(staged.error());
    const auto installed = store_.install(staged->path, [&] {
      auto published = directory.publish(*staged);
      half_way = !published && published.error() != Errc::disk_full;
      return published;
    });
    if (!installed && !half_way) directory.discard(*staged);
    if (!installed) return fail(installed.error());
    directory.remove_replaced();
  } catch (const std::exception& thrown) {
    half_way = true;
    return fail(Errc::stopped, std::string("installing a snapshot failed: ") + thrown.what());
  }
  FLOTILLA_ASSERT(store_.applied().index == received.index);
  Progress progress;
  progress.applied_index = received.index;
  // Calls whose entries were skipped hear from the session table how they ended.
  auto remembered = store_.remembered(calls_.session());
  if (!remembered) return progress;
  progress.session_outcomes.emplace_back(Bytes());
  const Duration now = loop_.now();
  for (state::Outcome& outcome : *remembered) end_call(outcome, now, progress);
  return progress;
}

/// Three sets of vectors go round: one is filled, one waits for the loop, and the loop looks at one.
void Applier::tell() {
  {
    const std::lock_guard lock(mutex_);
    unreported_.applied_index = progress_.applied_index;
    unreported_.bytes += progress_.bytes;
    unreported_.ended.insert(unreported_.ended.end(), progress_.ended.begin(), progress_.ended.end());
    std::move(progress_.session_outcomes.begin(), progress_.session_outcomes.end(),
              std::back_inserter(unreported_.session_outcomes));
    if (std::exchange(reporting_, true)) return;
  }
  loop_.post([this] {
    reported_.clear();
    {
      const std::lock_guard lock(mutex_);
      std::swap(reported_, unreported_);
      reporting_ = false;
    }
    events_.applied(reported_);
  });
}

}  // namespace flotilla::node
