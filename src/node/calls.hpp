// The calls of this process that have not ended: who waits, and under which id.
//
// Invariant: every call that begin() admitted is ended exactly once, by whoever takes it first: the applier with its
// result, or the loop with a refusal, a timeout or "unknown".
#pragma once

#include <cstddef>
#include <cstdint>
#include <future>
#include <mutex>
#include <optional>
#include <vector>

#include "base/executor.hpp"
#include "base/window.hpp"
#include "flotilla/db.hpp"
#include "flotilla/error.hpp"
#include "state/payload.hpp"

namespace flotilla::node {

/// What runs when a call ends: a promise or a function.
class Done {
 public:
  explicit Done(std::promise<Result<Bytes>> promise) : promise_(std::move(promise)) {}
  explicit Done(Completion function) : function_(std::move(function)) {}

  /// When the call was made.
  Duration begun{};

  /// What a function of the caller throws is dropped: it must not stop the thread that ends calls.
  void operator()(Result<Bytes> result) {
    if (function_) {
      try {
        function_(std::move(result));
      } catch (...) {
      }
    } else {
      promise_->set_value(std::move(result));
    }
  }

 private:
  std::optional<std::promise<Result<Bytes>>> promise_;
  Completion function_;
};

/// Results that a session remembers for calls that its owner has not acknowledged yet bound the distance between the
/// oldest call that has not ended and the newest: past it, calls are refused here rather than by every member.
inline constexpr std::uint64_t outstanding_max = 16'384;

/// Thread: any.
class Calls {
 public:
  struct Limits {
    std::size_t bytes = 0;
    std::size_t calls = 0;
  };
  Calls(std::uint64_t session, Limits limits) : session_(session), limits_(limits) {}

  struct Ticket {
    state::CallId id;
    std::uint64_t acknowledged_below = 0;
  };
  /// Admits a call of `bytes` and gives it an id; takes `done` only if it does. overloaded, or the reason given to
  /// refuse_new().
  [[nodiscard]] Result<Ticket> begin(std::size_t bytes, Done& done);
  /// Whoever gets it must run it. nullopt: it ended already.
  [[nodiscard]] std::optional<Done> take(std::uint64_t sequence);
  /// All that still wait, taken. For the end of everything.
  [[nodiscard]] std::vector<Done> take_all();
  /// Every later begin() is refused with this.
  void refuse_new(Error why);
  std::uint64_t session() const { return session_; }
  std::size_t size() const;

 private:
  struct Waiting {
    Done done;
    std::size_t bytes;
  };

  /// The smallest sequence that has not ended, or will be next. Requires: mutex_.
  std::uint64_t oldest() const { return waiting_.empty() ? next_sequence_ : waiting_.first(); }

  const std::uint64_t session_;
  const Limits limits_;
  mutable std::mutex mutex_;
  std::optional<Error> refused_;
  std::size_t bytes_ = 0;
  std::uint64_t next_sequence_ = 1;
  Window<Waiting> waiting_;
};

}  // namespace flotilla::node
