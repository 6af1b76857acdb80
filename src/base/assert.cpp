#include "base/assert.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace flotilla {
namespace {
std::atomic<AssertHandler> handler_{nullptr};
thread_local unsigned long failures_ = 0;
}  // namespace

void set_assert_handler(AssertHandler handler) noexcept {
  handler_.store(handler);
}

unsigned long assertion_failures() noexcept {
  return failures_;
}

void assert_failed(const char* expression, const char* file, int line) {
  ++failures_;
  if (const AssertHandler handler = handler_.load()) handler(expression, file, line);
  std::fprintf(stderr, "flotilla: broken invariant: %s (%s:%d)\n", expression, file, line);
  std::abort();
}

}  // namespace flotilla
