// Virtual time: every actor of a simulated cluster in one thread, deterministic from one seed.
//
// A SimScheduler owns the clock and the events of all actors; a SimLoop is one actor (a member's loop, log or apply
// thread). Time passes only in run_for, run_until and step. An actor's posts run in order; with `post_delay` set each
// waits a random while first, which interleaves the actors in ways that differ from seed to seed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/executor.hpp"

namespace flotilla::test {

class SimScheduler {
 public:
  using EventId = std::uint64_t;

  explicit SimScheduler(std::uint64_t seed = 1) : random_(seed) {}
  SimScheduler(const SimScheduler&) = delete;
  SimScheduler& operator=(const SimScheduler&) = delete;

  Duration now() const { return now_; }
  /// Events that ran so far: with the clock, a fingerprint of the run.
  std::uint64_t steps() const { return steps_; }

  std::uint64_t random() {  // splitmix64
    std::uint64_t z = random_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// Uniform in [0, bound). Requires: bound > 0.
  std::uint64_t below(std::uint64_t bound) { return random() % bound; }
  /// Uniform in [least, most].
  Duration between(Duration least, Duration most) {
    if (most <= least) return least;
    return least + Duration(static_cast<std::int64_t>(below(static_cast<std::uint64_t>((most - least).count()) + 1)));
  }
  bool chance(double probability) { return static_cast<double>(random() >> 11) * 0x1p-53 < probability; }

  /// Runs `task` as `actor` (nullptr: nobody's) at `when`, after what is already due then.
  EventId at(Duration when, const void* actor, Task task) {
    const EventId id = ++last_event_;
    const Key key{std::max(when, now_), id};
    events_.emplace(key, Event{actor, std::move(task)});
    keys_.emplace(id, key);
    return id;
  }
  void cancel(EventId id) {
    const auto at = keys_.find(id);
    if (at == keys_.end()) return;
    const auto node = events_.extract(at->second);  // destroyed last: it may own what cancels too
    keys_.erase(at);
  }
  /// Destroys all events of an actor without running them.
  void forget(const void* actor) {
    paused_.erase(actor);
    std::vector<Task> dropped;
    for (auto at = events_.begin(); at != events_.end();) {
      if (at->second.actor != actor) {
        ++at;
        continue;
      }
      dropped.push_back(std::move(at->second.task));
      keys_.erase(at->first.second);
      at = events_.erase(at);
    }
  }

  /// An actor that hangs: its events until then wait, and run in their order.
  void pause(const void* actor, Duration until) { paused_[actor] = std::max(paused_[actor], until); }

  /// Runs the next event, moving the clock to it. False: there is none.
  bool step() {
    if (events_.empty()) return false;
    last_actor_ = nullptr;
    auto node = events_.extract(events_.begin());
    now_ = node.key().first;
    if (const auto paused = paused_.find(node.mapped().actor); paused != paused_.end()) {
      if (paused->second > now_) {
        node.key().first = paused->second;
        keys_[node.key().second] = node.key();
        events_.insert(std::move(node));
        return true;
      }
      paused_.erase(paused);
    }
    keys_.erase(node.key().second);
    ++steps_;
    last_actor_ = node.mapped().actor;
    const void* const before = std::exchange(current_, node.mapped().actor);
    node.mapped().task();
    current_ = before;
    return true;
  }
  void run_for(Duration span) {
    const Duration end = now_ + span;
    while (!events_.empty() && events_.begin()->first.first <= end) step();
    now_ = end;
  }
  /// Steps until `done()` holds. False: it does not after `limit`, or nothing is left to happen.
  template <class Done>
  bool run_until(Done&& done, Duration limit = std::chrono::minutes(10)) {
    const Duration end = now_ + limit;
    while (!done()) {
      if (events_.empty() || events_.begin()->first.first > end) return false;
      step();
    }
    return true;
  }

  /// The actor whose event runs; nullptr between events, when the test itself acts for everybody.
  const void* current() const { return current_; }
  /// Whose event ran in the last step; nullptr: nobody's.
  const void* last_actor() const { return last_actor_; }

 private:
  using Key = std::pair<Duration, EventId>;
  struct Event {
    const void* actor;
    Task task;
  };
  std::uint64_t random_;
  Duration now_ = std::chrono::seconds(1);
  std::uint64_t steps_ = 0;
  EventId last_event_ = 0;
  std::map<Key, Event> events_;
  std::unordered_map<EventId, Key> keys_;
  std::unordered_map<const void*, Duration> paused_;
  const void* current_ = nullptr;
  const void* last_actor_ = nullptr;
};

/// One actor. Destroying or stopping it is that thread's end: what it was asked to do is destroyed without being run.
class SimLoop final : public Loop {
 public:
  explicit SimLoop(SimScheduler& scheduler) : scheduler_(scheduler) {}
  ~SimLoop() override { stop(); }
  SimLoop(const SimLoop&) = delete;
  SimLoop& operator=(const SimLoop&) = delete;

  SimScheduler& scheduler() { return scheduler_; }
  /// Longest random wait of a posted task.
  void set_post_delay(Duration longest) { post_delay_ = longest; }
  /// How fast this actor's clock runs against the world's.
  void set_clock_rate(double rate) { clock_rate_ = rate; }
  void stop() {
    stopped_ = true;
    scheduler_.forget(this);
  }

  void post(Task task) override {
    if (stopped_) return;
    last_post_ = std::max(last_post_, scheduler_.now() + scheduler_.between(Duration::zero(), post_delay_));
    scheduler_.at(last_post_, this, std::move(task));
  }
  bool is_current() const override { return scheduler_.current() == this || scheduler_.current() == nullptr; }
  Duration now() const override { return scaled(scheduler_.now(), clock_rate_); }
  TimerId after(Duration delay, Task task) override {
    if (stopped_) return ++spent_;
    // Never early by this actor's own clock, whatever was rounded away.
    const Duration wait =
        scaled(std::max(delay, Duration::zero()), 1 / clock_rate_) + Duration(clock_rate_ == 1 ? 0 : 2);
    return scheduler_.at(scheduler_.now() + wait, this, std::move(task));
  }
  void cancel(TimerId id) override {
    if (!stopped_) scheduler_.cancel(id);
  }

 private:
  static Duration scaled(Duration time, double rate) {
    return rate == 1 ? time : Duration(static_cast<std::int64_t>(static_cast<double>(time.count()) * rate));
  }

  SimScheduler& scheduler_;
  double clock_rate_ = 1;
  Duration post_delay_ = Duration::zero();
  Duration last_post_{};
  TimerId spent_ = 0;
  bool stopped_ = false;
};

}  // namespace flotilla::test
