#include "base/assert.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace flotilla {
namespace {
std::atomic<AssertHandler> handler_{nullptr};
}

void set_assert_handler(AssertHandler handler) noexcept {
  handler_.store(handler);
}

void assert_failed(const char* expression, const char* file, int line) {
  if (const AssertHandler handler = handler_.load()) handler(expression, file, line);
  std::fprintf(stderr, "flotilla: broken invariant: %s (%s:%d)\n", expression, file, line);
  std::abort();
}

}  // namespace flotilla
