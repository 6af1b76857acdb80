#include "node/log_writer.hpp"

#include <exception>
#include <utility>

namespace flotilla::node {

LogWriter::LogWriter(Executor& loop, Executor& executor, log::Log& log, Events events)
    : loop_(loop), executor_(executor), log_(log), events_(std::move(events)), log_bytes_(log.bytes()) {}

void LogWriter::submit(Write write) {
  bool schedule = false;
  {
    const std::lock_guard lock(mutex_);
    queued_.push_back(std::move(write));
    schedule = !std::exchange(scheduled_, true);
  }
  if (schedule) executor_.post([this] { drain(); });
}

void LogWriter::drain() {
  std::vector<Write> group;
  {
    const std::lock_guard lock(mutex_);
    scheduled_ = false;
    group.swap(queued_);
  }
  if (group.empty()) return;
  if (auto written = write(group); !written) return end(written.error());
  log_bytes_.store(log_.bytes(), std::memory_order_relaxed);
  loop_.post([this, sequence = group.back().sequence] { events_.durable(sequence); });
}

Result<LogWriter::Slice> LogWriter::slice_of(Index first, std::optional<Term> known, std::size_t bytes_max) {
  try {
    const auto prev_term = known ? Result<Term>(*known) : log_.term_at(first.previous());
    if (!prev_term) return fail(prev_term.error());
    auto entries = log_.read(first, bytes_max);
    if (!entries) return fail(entries.error());
    return Slice{*prev_term, std::move(*entries)};
  } catch (const std::exception& thrown) {
    return fail(Errc::stopped, thrown.what());
  }
}

Result<void> LogWriter::write(const std::vector<Write>& group) {
  std::vector<log::Log::Write> writes;
  writes.reserve(group.size());
  for (const Write& write : group) {
    if (!write.log_restart) {
      writes.push_back({write.hard_state, write.entries, write.commit_index});
      continue;
    }
    // The only writes that are not one block for all: a snapshot was installed.
    if (write.hard_state) writes.push_back({write.hard_state, {}, {}});
    if (!writes.empty()) {
      if (auto appended = append(writes); !appended) return appended;
    }
    if (auto begun = begin_anew(*write.log_restart); !begun) return begun;
    writes.clear();
    if (!write.entries.empty()) writes.push_back({std::nullopt, write.entries, write.commit_index});
  }
  return writes.empty() ? Result<void>() : append(writes);
}

Result<void> LogWriter::append(std::span<const log::Log::Write> writes) {
  try {
    return log_.append(writes);
  } catch (const std::exception& thrown) {  // memory, or a broken invariant: this run of the log is over
    return fail(Errc::stopped, thrown.what());
  }
}

Result<void> LogWriter::begin_anew(const raft::SnapshotMeta& after) {
  try {
    if (auto begun = log_.begin_anew(after.index, after.term); !begun) return begun;
    return log_.trim(log_.first_index());
  } catch (const std::exception& thrown) {
    return fail(Errc::stopped, thrown.what());
  }
}

Result<void> LogWriter::trim_to(Index first) {
  try {
    return log_.trim(first);
  } catch (const std::exception& thrown) {
    return fail(Errc::stopped, thrown.what());
  }
}

void LogWriter::trim(Index first, std::function<void(Index)> done) {
  executor_.post([this, first, done = std::move(done)]() mutable {
    const auto before = log_.first_index();
    if (auto trimmed = trim_to(first); !trimmed) return end(trimmed.error());
    if (log_.first_index() == before) return;
    log_bytes_.store(log_.bytes(), std::memory_order_relaxed);
    loop_.post([done = std::move(done), left = log_.first_index()] { done(left); });
  });
}

Result<void> LogWriter::sync_now() {
  try {
    return log_.sync();
  } catch (const std::exception& thrown) {
    return fail(Errc::stopped, thrown.what());
  }
}

void LogWriter::sync(std::function<void()> done) {
  executor_.post([this, done = std::move(done)]() mutable {
    if (auto synced = sync_now(); !synced) return end(synced.error());

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
    const log::Log::Write nothing{std::nullopt, {}, commit_index};
    if (auto written = append({&nothing, 1}); !written) end(written.error());
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
