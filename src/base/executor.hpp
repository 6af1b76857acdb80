// The scheduler seam. Every thread of a member is an actor behind one of these; the simulator runs all of them in one
// thread with virtual time.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/task.hpp"

namespace flotilla {

/// Monotonic time since an arbitrary origin. Wall time never reaches the consensus core.
using Duration = std::chrono::nanoseconds;

class Executor {
 public:
  virtual ~Executor() = default;
  /// Runs `task` later on this actor's thread, after all posted before it. Thread: any. Never runs it inside the call.
  /// After the executor stopped, the task is destroyed without being run.
  virtual void post(Task task) = 0;
  /// Whether the caller is on this actor's thread.
  virtual bool is_current() const = 0;
};

/// The loop thread's executor: it also keeps the time.
class Loop : public Executor {
 public:
  using TimerId = std::uint64_t;
  /// Thread: any.
  virtual Duration now() const = 0;
  /// Runs `task` on this thread once `delay` has passed. Thread: the loop's own. The id is never 0.
  virtual TimerId after(Duration delay, Task task) = 0;
  /// Forgets a timer that has not run; no effect on one that has. Thread: the loop's own.
  virtual void cancel(TimerId id) = 0;
  /// See HoldWakes.
  virtual void hold_wakes() {}
  virtual void release_wakes() {}
};

/// While one lives, what this thread posts to the loop is seen if the loop is awake, but wakes it only at the end: a
/// loop that sleeps and wakes for each of many posts costs more than what it does for them. One at a time on a thread.
class HoldWakes {
 public:
  explicit HoldWakes(Loop& loop) : loop_(loop) { loop_.hold_wakes(); }
  ~HoldWakes() { loop_.release_wakes(); }
  HoldWakes(const HoldWakes&) = delete;
  HoldWakes& operator=(const HoldWakes&) = delete;

 private:
  Loop& loop_;
};

}  // namespace flotilla
