// One actor thread: runs posted tasks in order.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/executor.hpp"
#include "flotilla/error.hpp"

namespace flotilla::node {

/// Thread: any. A poster wakes the thread only when it sleeps.
class ThreadExecutor final : public Executor {
 public:
  /// Starts the thread under `name` (at most 15 bytes). An exception that leaves a task goes to `failed`, on the
  /// thread.
  ThreadExecutor(const std::string& name, std::function<void(const Error&)> failed);
  ~ThreadExecutor() override;

  void post(Task task) override;
  bool is_current() const override;
  /// Runs what was posted so far, then ends the thread; later posts are dropped. Idempotent. Requires: not on the
  /// thread.
  void stop();

 private:
  void run(const std::string& name);

  std::function<void(const Error&)> failed_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Task> queue_;
  bool sleeping_ = false;
  bool stopping_ = false;
  std::atomic<std::thread::id> thread_id_;
  std::thread thread_;
};

}  // namespace flotilla::node
