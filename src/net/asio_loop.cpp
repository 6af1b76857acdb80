#include "net/asio_loop.hpp"

#include <csignal>
#include <exception>
#include <utility>

#include <pthread.h>

#include "base/assert.hpp"

namespace flotilla::net {
namespace {

// Ready handlers and rounds of posted tasks in one turn, so that a flood of either cannot keep written data back.
constexpr int handlers_per_turn = 64;
constexpr int rounds_per_turn = 4;

thread_local const AsioLoop* held_by_this_thread = nullptr;
thread_local bool owed_by_this_thread = false;

}  // namespace

AsioLoop::AsioLoop(std::function<void(const Error&)> failed)
    : failed_(std::move(failed)), sleeping_(false), scratch_(new char[scratch_bytes]) {}

AsioLoop::~AsioLoop() {
  stop();
}

template <class F>
void AsioLoop::guarded(F&& function) {
  try {
    function();
  } catch (const std::exception& thrown) {
    if (failed_) failed_(Error(Errc::stopped, thrown.what()));
  } catch (...) {
    if (failed_) failed_(Error(Errc::stopped, "a task threw something that is no std::exception"));
  }
}

void AsioLoop::post(Task task) {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;  // the caller's frame destroys the task, after the lock is released
    posted_.push_back(std::move(task));
  }
  if (held_by_this_thread == this) {
    owed_by_this_thread = true;
  } else {
    wake();
  }
}

/// The loop announces its sleep before it looks at posted_ for the last time, so either it sees this task or we see the
/// announcement. Only the first of many posters pays for the wake-up.
void AsioLoop::wake() {
  if (sleeping_.exchange(false)) boost::asio::post(io_, [] {});
}

void AsioLoop::hold_wakes() {
  FLOTILLA_ASSERT(held_by_this_thread == nullptr);
  held_by_this_thread = this;
}

void AsioLoop::release_wakes() {
  held_by_this_thread = nullptr;
  if (std::exchange(owed_by_this_thread, false)) wake();
}

bool AsioLoop::is_current() const {
  return thread_id_.load(std::memory_order_relaxed) == std::this_thread::get_id();
}

Duration AsioLoop::now() const {
  return std::chrono::steady_clock::now().time_since_epoch();
}

Loop::TimerId AsioLoop::after(Duration delay, Task task) {
  const TimerId id = ++last_timer_;
  const Duration at = now() + std::max(delay, Duration::zero());
  timers_.emplace(TimerKey{at, id}, std::move(task));
  deadlines_.emplace(id, at);
  return id;
}

void AsioLoop::cancel(TimerId id) {
  const auto at = deadlines_.find(id);
  if (at == deadlines_.end()) return;
  const auto timer = timers_.find(TimerKey{at->second, id});
  deadlines_.erase(at);
  const Task task = std::move(timer->second);  // destroyed last: it may own something that cancels a timer too
  timers_.erase(timer);
}

void AsioLoop::start_thread() {
  const std::lock_guard lock(stop_mutex_);
  FLOTILLA_ASSERT(!thread_.joinable());
  // The host's signals are the host's: none is handled on this thread.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void AsioLoop::stop() {
  const std::lock_guard one(stop_mutex_);
  if (thread_.joinable()) {
    FLOTILLA_ASSERT(!is_current());
    post([this] { stopping_ = true; });
    thread_.join();
  }
  std::vector<Task> left;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    left.swap(posted_);
  }
}

void AsioLoop::run() {
  pthread_setname_np(pthread_self(), "flotilla-loop");
  thread_id_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  while (!stopping_) {
    guarded([this] { wait(); });
    end_turn();
    bool more = false;
    for (int count = 0; count < handlers_per_turn; ++count) {
      std::size_t ran = 1;  // also after an exception: there may be more
      guarded([&] { ran = io_.poll_one(); });
      if (ran == 0) break;
      more = true;
    }
    if (more) end_turn();
  }
  shut_endpoints();
  thread_id_.store(std::thread::id(), std::memory_order_relaxed);
}

void AsioLoop::wait() {
  arm_timer();
  sleeping_.store(true);
  bool idle = unflushed_.empty() && listening_.empty();
  if (idle) {
    const std::lock_guard lock(mutex_);
    idle = posted_.empty();
  }
  if (idle) {
    io_.run_one();
  } else {
    sleeping_.store(false);
    io_.poll_one();
  }
  sleeping_.store(false);
}

void AsioLoop::run_posted() {
  for (int round = 0; round < rounds_per_turn && !stopping_; ++round) {
    {
      const std::lock_guard lock(mutex_);
      running_.swap(posted_);
    }
    if (running_.empty()) return;
    for (Task& posted : running_) {
      guarded([&] {
        Task task = std::move(posted);  // what it owns goes before the next one runs
        task();
      });
    }
    running_.clear();
  }
}

void AsioLoop::end_turn() {
  run_posted();
  drain(unflushed_, [](Endpoint& endpoint) { endpoint.flush(); });
  drain(listening_, [](Endpoint& endpoint) { endpoint.listen_on(); });
}

/// Calls each once; what the calls add waits for the next turn.
template <class F>
void AsioLoop::drain(std::vector<std::shared_ptr<Endpoint>>& endpoints, F&& call) {
  if (endpoints.empty()) return;
  std::vector<std::shared_ptr<Endpoint>> now;
  now.swap(endpoints);
  for (const std::shared_ptr<Endpoint>& endpoint : now) guarded([&] { call(*endpoint); });
  now.clear();
  if (endpoints.empty()) endpoints.swap(now);  // keeps the capacity
}

void AsioLoop::arm_timer() {
  if (timers_.empty()) return;
  const Duration first = timers_.begin()->first.first;
  if (first >= armed_) return;  // it rings early enough; a cancelled timer costs at most one idle ring
  armed_ = first;
  timer_.expires_at(std::chrono::steady_clock::time_point(first));
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (error) return;  // armed again for an earlier time
    armed_ = Duration::max();
    run_timers();
  });
}

void AsioLoop::run_timers() {
  const Duration due = now();
  while (!timers_.empty() && timers_.begin()->first.first <= due) {
    auto node = timers_.extract(timers_.begin());
    deadlines_.erase(node.key().second);
    guarded([&] { node.mapped()(); });
  }
}

void AsioLoop::shut_endpoints() {
  while (!endpoints_.empty()) {
    Endpoint* endpoint = *endpoints_.begin();
    endpoints_.erase(endpoints_.begin());
    endpoint->shut();
  }
  unflushed_.clear();
  listening_.clear();
  deadlines_.clear();
  // What a task owns may cancel a timer when it goes, so the map is emptied before any task is destroyed.
  std::map<TimerKey, Task> timers;
  timers.swap(timers_);
  timers.clear();
  boost::system::error_code ignored;
  timer_.cancel(ignored);
  // Operations hold their endpoint, and that the loop: run them to their end, or neither is ever freed.
  for (std::size_t ran = 1; ran != 0;) {
    ran = 0;
    guarded([&] { ran = io_.poll(); });
  }
}

}  // namespace flotilla::net
