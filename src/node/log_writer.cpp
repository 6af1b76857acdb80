#include "node/log_writer.hpp"

#include <exception>
#include <utility>

namespace flotilla::node {
namespace {

/// An exception (memory, or a broken invariant) ends this run of the log, too.
template <class Call>
auto guarded(Call call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::exception& thrown) {
    return fail(Errc::stopped, thrown.what());
  }
}

}  // namespace

LogWriter::LogWriter(Loop& loop, Executor& executor, log::Log& log, Events events)
    : loop_(loop), executor_(executor), log_(log), events_(std::move(events)), log_bytes_(log.bytes()) {}

void LogWriter::submit(Write write) {
  write.submitted = loop_.now();
  bool schedule = false;
  {
    const std::lock_guard lock(mutex_);
    queued_.push_back(std::move(write));
    schedule = !std::exchange(scheduled_, true);
  }
  if (schedule) executor_.post([this] { drain(); });
}

void LogWriter::drain() {
  if (!group_.empty()) return;  // retry() goes on from there
  {
    const std::lock_guard lock(mutex_);
    scheduled_ = false;
    group_.swap(queued_);
  }
  if (group_.empty()) return;
  wait_.add(loop_.now() - group_.front().submitted);
  std::uint64_t entries = 0;
  for (const Write& write : group_) entries += write.entries.size();
  entries_.fetch_add(entries, std::memory_order_relaxed);
  write_group();
}

void LogWriter::report(Metrics& metrics) const {
  metrics.log_wait = wait_.distribution();
  metrics.log_write = log_.write_times();
  metrics.log_sync = log_.sync_times();
  metrics.logged_entries = entries_.load(std::memory_order_relaxed);
}

void LogWriter::retry() {
  if (retrying_.exchange(true)) return;
  executor_.post([this] {
    retrying_ = false;
    if (group_.empty() || failed_) return;
    write_group();
    drain();
  });
}

void LogWriter::write_group() {
  steps_ = 0;
  const auto written = write_steps();
  if (!written && written.error() != Errc::disk_full) return end(written.error());
  const bool was_full = std::exchange(full_, !written);
  if (full_ != was_full) {
    loop_.post([this, why = written ? std::nullopt : std::optional(written.error())] { events_.full(why); });
  }
  if (!written) return;
  log_bytes_.store(log_.bytes(), std::memory_order_relaxed);
  loop_.post([this, sequence = group_.back().sequence] { events_.durable(sequence); });
  group_.clear();
  steps_done_ = 0;
}

Result<LogWriter::Slice> LogWriter::slice_of(Index first, std::optional<Term> known, std::size_t bytes_max) {
  return guarded([&]() -> Result<Slice> {
    const auto prev_term = known ? Result<Term>(*known) : log_.term_at(first.previous());
    if (!prev_term) return fail(prev_term.error());
    auto entries = log_.read(first, bytes_max);
    if (!entries) return fail(entries.error());
    return Slice{*prev_term, std::move(*entries)};
  });
}

Result<void> LogWriter::write_steps() {
  std::vector<log::Log::Write> writes;
  writes.reserve(group_.size());
  for (const Write& write : group_) {
    if (!write.log_restart) {
      writes.push_back({write.hard_state, write.entries, write.commit_index});
      continue;
    }
    // The only writes that are not one block for all: a snapshot was installed.
    if (write.hard_state) writes.push_back({write.hard_state, {}, {}});
    if (!writes.empty()) {
      if (auto appended = once([&] { return append_or_resume(writes); }); !appended) return appended;
    }
    if (auto begun = once([&] { return begin_anew(*write.log_restart); }); !begun) return begun;
    writes.clear();
    if (!write.entries.empty()) writes.push_back({std::nullopt, write.entries, write.commit_index});
  }
  return writes.empty() ? Result<void>() : once([&] { return append_or_resume(writes); });
}

/// The same steps are passed in every try; one that is done stays done.
template <class Step>
Result<void> LogWriter::once(Step step) {
  if (++steps_ <= steps_done_) return {};
  auto done = step();
  if (done) ++steps_done_;
  return done;
}

Result<void> LogWriter::append_or_resume(std::span<const log::Log::Write> writes) {
  auto done = guarded([&] { return append_begun_ ? log_.resume() : log_.append(writes); });
  append_begun_ = !done;
  return done;
}

Result<void> LogWriter::begin_anew(const raft::SnapshotMeta& after) {
  return guarded([&]() -> Result<void> {
    if (auto begun = log_.begin_anew(after.index, after.term); !begun) return begun;
    return log_.trim(log_.first_index());
  });
}

void LogWriter::trim(Index first, std::function<void(Index)> done) {
  executor_.post([this, first, done = std::move(done)]() mutable {
    const auto before = log_.first_index();
    const auto trimmed = guarded([&] { return log_.trim(first); });
    // Some file systems need space to remove a file: then the rest goes with the next trim.
    if (!trimmed && trimmed.error() != Errc::disk_full) return end(trimmed.error());
    if (log_.first_index() == before) return;
    log_bytes_.store(log_.bytes(), std::memory_order_relaxed);
    loop_.post([done = std::move(done), left = log_.first_index()] { done(left); });
  });
}

void LogWriter::sync(std::function<void()> done) {
  executor_.post([this, done = std::move(done)]() mutable {
    if (auto synced = guarded([&] { return log_.sync(); }); !synced) return end(synced.error());
    loop_.post(std::move(done));
  });
}

/// The log itself does nothing any more after an error: whatever is asked of it later ends here again.
void LogWriter::end(const Error& error) {
  if (std::exchange(failed_, true)) return;
  loop_.post([this, error] { events_.failed(error); });
}

void LogWriter::protect(Index commit_index) {
  executor_.post([this, commit_index] {
    if (!group_.empty()) return;  // there will be a block behind it
    const log::Log::Write nothing{std::nullopt, {}, commit_index};
    const auto written = guarded([&] { return log_.append({&nothing, 1}); });
    if (!written && written.error() != Errc::disk_full) end(written.error());
  });
}

void LogWriter::read(Index first, std::optional<Term> prev_term, std::size_t bytes_max,
                     std::function<void(Slice)> done) {
  if (first == Index{1}) prev_term = Term{};
  executor_.post([this, first, prev_term, bytes_max, done = std::move(done)]() mutable {
    auto slice = slice_of(first, prev_term, bytes_max);
    if (!slice && slice.error() != Errc::not_found) return end(slice.error());
    if (!slice) slice = Slice{};
    loop_.post([done = std::move(done), slice = std::move(*slice)]() mutable { done(std::move(slice)); });
  });
}

}  // namespace flotilla::node
