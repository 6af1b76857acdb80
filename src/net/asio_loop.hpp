// The loop thread: turns of an Asio io_context.
//
// One turn: run handlers, run what was posted, let every connection that was sent something write it in one system
// call, and only then listen on. So whatever a turn queues for one peer leaves together, however many handlers queued
// it, and a task posted by a handler of this turn runs in this turn. The handler that ends a sleep has a turn of its
// own (its answer leaves before anything else is looked at); whatever else became ready meanwhile shares the next one.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/executor.hpp"
#include "flotilla/error.hpp"
#include "net/asio.hpp"

namespace flotilla::net {

/// What lives on the loop and holds a descriptor: written out at the end of a turn, shut when the loop ends.
class Endpoint {
 public:
  virtual void flush() {}
  /// After the turn's writes: waits for the next bytes.
  virtual void listen_on() {}
  /// Closes the descriptor, so that every operation on it ends; no event follows.
  virtual void shut() = 0;

 protected:
  ~Endpoint() = default;
};

class AsioLoop final : public Loop, public std::enable_shared_from_this<AsioLoop> {
 public:
  /// `failed` gets what a task threw, on the loop thread.
  explicit AsioLoop(std::function<void(const Error&)> failed);
  ~AsioLoop() override;

  void post(Task task) override;
  bool is_current() const override;
  Duration now() const override;
  TimerId after(Duration delay, Task task) override;
  void hold_wakes() override;
  void release_wakes() override;
  void cancel(TimerId id) override;

  void start_thread();
  /// Ends the thread, shuts every endpoint, destroys what was posted. Idempotent. Requires: not on the loop thread.
  void stop();

  // Thread: loop, or any once it stopped.
  boost::asio::io_context& io() { return io_; }
  void add(Endpoint& endpoint) { endpoints_.insert(&endpoint); }
  void remove(Endpoint& endpoint) { endpoints_.erase(&endpoint); }
  void flush_later(std::shared_ptr<Endpoint> endpoint) { unflushed_.push_back(std::move(endpoint)); }
  void listen_later(std::shared_ptr<Endpoint> endpoint) { listening_.push_back(std::move(endpoint)); }
  /// A buffer for reads that are delivered before the next one.
  char* scratch() { return scratch_.get(); }
  static constexpr std::size_t scratch_bytes = 256u << 10;

 private:
  using TimerKey = std::pair<Duration, TimerId>;

  void run();
  void wake();
  void wait();
  void end_turn();
  void run_posted();
  template <class F>
  void drain(std::vector<std::shared_ptr<Endpoint>>& endpoints, F&& call);
  void arm_timer();
  void run_timers();
  void shut_endpoints();
  template <class F>
  void guarded(F&& function);

  std::function<void(const Error&)> failed_;
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{io_.get_executor()};

  // Shared with every thread.
  std::mutex mutex_;
  std::vector<Task> posted_;    // under mutex_
  bool stopped_ = false;        // under mutex_: the thread is gone
  std::atomic<bool> sleeping_;  // the loop may be asleep: who posts must wake it
  std::atomic<std::thread::id> thread_id_;
  std::mutex stop_mutex_;
  std::thread thread_;  // under stop_mutex_

  // Thread: loop.
  bool stopping_ = false;
  std::vector<Task> running_;
  std::vector<std::shared_ptr<Endpoint>> unflushed_;
  std::vector<std::shared_ptr<Endpoint>> listening_;
  std::unordered_set<Endpoint*> endpoints_;
  std::map<TimerKey, Task> timers_;
  std::unordered_map<TimerId, Duration> deadlines_;
  TimerId last_timer_ = 0;
  boost::asio::steady_timer timer_{io_};
  Duration armed_ = Duration::max();
  std::unique_ptr<char[]> scratch_;
};

}  // namespace flotilla::net
