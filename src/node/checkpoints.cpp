#include "node/checkpoints.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log_sink.hpp"

namespace flotilla::node {
namespace {

/// After the disk was too full for one.
constexpr Duration patience = std::chrono::seconds(5);

}  // namespace

Checkpoints::Checkpoints(Loop& loop, Executor& apply, Executor& writer, state::Store& store, Limits limits,
                         LogSink log_sink, Events events)
    : loop_(loop),
      apply_(apply),
      writer_(writer),
      store_(store),
      limits_(limits),
      log_sink_(std::move(log_sink)),
      events_(std::move(events)),
      last_at_(loop.now()) {
  // What was replayed would be replayed again, and more each time, if this run ended before its first one.
  if (store.applied_index() > index()) log_bytes_ = limits_.log_bytes;
}

Checkpoints::~Checkpoints() {
  stop();
}

bool Checkpoints::due() const {
  if (running_ || loop_.now() < not_before_ || store_.applied_index() <= index()) return false;
  return log_bytes_ >= limits_.log_bytes || loop_.now() - last_at_ >= limits_.interval ||
         store_.grown_bytes() >= limits_.growth_bytes;
}

void Checkpoints::tick() {
  if (due()) begin();
}

void Checkpoints::begin() {
  running_ = std::make_shared<Running>();
  running_->log_bytes = log_bytes_;
  apply_.post([this, running = running_, ending = ending_] {
    if (*ending) return;
    auto begun = store_.begin_checkpoint();
    if (begun) running->checkpoint = std::move(*begun);
    loop_.post([this, running, ending, result = std::move(begun).map([](auto&&) {})] {
      if (*ending) return;
      if (!result) return finished(running, fail(result.error()));
      if (!events_.sync_log) return finish(running);
      events_.sync_log([this, running, ending] {
        if (!*ending) finish(running);
      });
    });
  });
}

void Checkpoints::finish(const std::shared_ptr<Running>& running) {
  writer_.post([this, running, ending = ending_, &store = store_, &loop = loop_, limits = limits_] {
    // Half the way to the next one that is due, the log's syncs have to wait after all.
    const auto hurry = [&] { return *ending || store.grown_bytes() >= 3 * limits.growth_bytes / 2; };
    const auto result = store.finish_checkpoint(*running->checkpoint, hurry);
    running->checkpoint.reset();
    loop.post([this, running, ending, result] {
      if (!*ending) finished(running, result);
    });
  });
}

void Checkpoints::finished(const std::shared_ptr<Running>& running, const Result<Index>& result) {
  running_.reset();
  // Nothing has changed: the one before is in force.
  if (!result && (result.error() == Errc::disk_full || result.error() == Errc::too_many_readers)) {
    log_line(log_sink_, LogLevel::warning, "no checkpoint, the log is kept: {}", result.error().message());
    not_before_ = loop_.now() + patience;
    return;
  }
  if (!result) return events_.failed(result.error());
  last_at_ = loop_.now();
  if (*result) log_bytes_ -= running->log_bytes;  // or it was of a database that is not in use any more
}

}  // namespace flotilla::node
