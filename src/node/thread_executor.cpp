#include "node/thread_executor.hpp"

#include <pthread.h>

#include <exception>

#include "base/assert.hpp"

namespace flotilla::node {

ThreadExecutor::ThreadExecutor(const std::string& name, std::function<void(const Error&)> failed)
    : failed_(std::move(failed)), thread_([this, name] { run(name); }) {}

ThreadExecutor::~ThreadExecutor() {
  stop();
}

void ThreadExecutor::post(Task task) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    queue_.push_back(std::move(task));
    wake = sleeping_;
  }
  if (wake) wake_.notify_one();
}

bool ThreadExecutor::is_current() const {
  return std::this_thread::get_id() == thread_id_.load();
}

void ThreadExecutor::stop() {
  FLOTILLA_ASSERT(!is_current());
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void ThreadExecutor::run(const std::string& name) {
  pthread_setname_np(pthread_self(), name.c_str());
  thread_id_.store(std::this_thread::get_id());
  std::vector<Task> batch;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      while (queue_.empty() && !stopping_) {
        sleeping_ = true;
        wake_.wait(lock);
        sleeping_ = false;
      }
      if (queue_.empty()) return;
      batch.swap(queue_);
    }
    for (Task& task : batch) {
      try {
        task();
      } catch (const std::exception& thrown) {
        failed_(Error(Errc::stopped, std::string("an exception left a task: ") + thrown.what()));
      } catch (...) {
        failed_(Error(Errc::stopped, "something that is not a std::exception left a task"));
      }
      task = Task();  // what it captured ends here, not with the batch
    }
    batch.clear();
  }
}

}  // namespace flotilla::node
