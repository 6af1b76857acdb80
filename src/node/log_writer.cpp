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
  if (group.empty() || failed_) return;
  std::vector<log::Log::Write> writes;
  writes.reserve(group.size());
  for (const Write& write : group) writes.push_back({write.hard_state, write.entries, write.commit_index});
  if (auto written = append(writes); !written) return end(written.error());
  log_bytes_.store(log_.bytes(), std::memory_order_relaxed);
  loop_.post([this, sequence = group.back().sequence] { events_.durable(sequence); });
}

Result<LogWriter::Slice> LogWriter::slice_of(Index first, std::size_t bytes_max) {
  try {
    const bool begins = first == log_.first_index() && first == Index{1};
    const auto prev_term = begins ? Result<Term>(Term{}) : log_.term_at(first.previous());
    if (!prev_term) return fail(prev_term.error());
    auto entries = log_.read(first, bytes_max);
    if (!entries) return fail(entries.error());
    return Slice{*prev_term, std::move(*entries)};
  } catch (const std::exception& thrown) {
    return fail(Errc::stopped, thrown.what());
  }
}

Result<void> LogWriter::append(const std::vector<log::Log::Write>& writes) {
  try {
    return log_.append(writes);
  } catch (const std::exception& thrown) {  // memory, or a broken invariant: this run of the log is over
    return fail(Errc::stopped, thrown.what());
  }
}

void LogWriter::end(const Error& error) {
  if (std::exchange(failed_, true)) return;
  loop_.post([this, error] { events_.failed(error); });
}

void LogWriter::protect(Index commit_index) {
  executor_.post([this, commit_index] {
    if (failed_) return;
    if (auto written = append({log::Log::Write{std::nullopt, {}, commit_index}}); !written) end(written.error());
  });
}

void LogWriter::read(Index first, std::size_t bytes_max, std::function<void(Slice)> done) {
  executor_.post([this, first, bytes_max, done = std::move(done)]() mutable {
    if (failed_) return;
    auto slice = slice_of(first, bytes_max);
    if (!slice && slice.error() != Errc::not_found) return end(slice.error());
    if (!slice) slice = Slice{};
    loop_.post([done = std::move(done), slice = std::move(*slice)]() mutable { done(std::move(slice)); });
  });
}

}  // namespace flotilla::node
