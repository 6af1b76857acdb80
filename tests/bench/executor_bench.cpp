// Handing work over to a member's threads: so many tasks are posted, and all waited for. The first of them wakes the
// thread, the last one the poster.
#include <atomic>
#include <memory>

#include <benchmark/benchmark.h>

#include "net/port.hpp"
#include "node/thread_executor.hpp"

namespace {

using namespace flotilla;

void ignore(const Error&) {}

void post_and_wait(benchmark::State& state, Executor& executor) {
  static std::atomic<std::int64_t> left = 0;  // the last notification may come after this function
  for (auto _ : state) {
    left = state.range(0);
    for (std::int64_t i = 0; i < state.range(0); ++i) {
      executor.post([] {
        if (--left == 0) left.notify_one();
      });
    }
    for (std::int64_t now = left; now != 0; now = left) left.wait(now);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

/// To the log thread and the apply thread.
void executor_post(benchmark::State& state) {
  node::ThreadExecutor executor("bench", ignore);
  post_and_wait(state, executor);
}
BENCHMARK(executor_post)->Arg(1)->Arg(64)->UseRealTime();

void loop_post(benchmark::State& state) {
  const std::shared_ptr<net::Port> port = net::Port::start({}, ignore);
  post_and_wait(state, port->loop());
  port->stop();
}
BENCHMARK(loop_post)->Arg(1)->Arg(64)->UseRealTime();

/// As from a completion on the loop thread itself: nobody sleeps.
void loop_post_to_itself(benchmark::State& state) {
  const std::shared_ptr<net::Port> port = net::Port::start({}, ignore);
  std::atomic<bool> done = false;
  std::function<void()> next = [&] {
    if (state.KeepRunning()) return port->loop().post([&] { next(); });
    done = true;
    done.notify_one();
  };
  port->loop().post([&] { next(); });
  done.wait(false);
  port->stop();
}
BENCHMARK(loop_post_to_itself)->UseRealTime();

}  // namespace
