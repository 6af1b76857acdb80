// FLOTILLA_ASSERT: a broken invariant or a programmer's error, never a condition that input, a peer or a disk can
// cause.
#pragma once

namespace flotilla {

/// Called once with the failed expression and its place. Default: print it and abort().
/// A release build of the member installs one that throws InvariantBroken, which its threads turn into a fail-stop.
using AssertHandler = void (*)(const char* expression, const char* file, int line);
void set_assert_handler(AssertHandler handler) noexcept;
/// How often an assertion failed on this thread. Whoever catches exceptions of foreign code can tell by it that one
/// passing through was ours.
unsigned long assertion_failures() noexcept;
[[noreturn]] void assert_failed(const char* expression, const char* file, int line);

}  // namespace flotilla

#define FLOTILLA_ASSERT(expression) \
  (static_cast<bool>(expression) ? void(0) : ::flotilla::assert_failed(#expression, __FILE__, __LINE__))
