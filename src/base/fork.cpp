#include "base/fork.hpp"

#include <pthread.h>

#include <atomic>

namespace flotilla {
namespace {

std::atomic<std::uint64_t> generation_{0};

void in_child() {
  generation_.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

std::uint64_t fork_generation() noexcept {
  static const int registered = ::pthread_atfork(nullptr, nullptr, in_child);
  static_cast<void>(registered);
  return generation_.load(std::memory_order_relaxed);
}

}  // namespace flotilla
