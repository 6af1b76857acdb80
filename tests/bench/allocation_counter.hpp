// Counts what operator new gives out, by thread. A program that links it has the global operators replaced, so none
// under a sanitizer, which replaces them too. What malloc gives to C code (LMDB's copies of pages) is not counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace flotilla::bench {

struct Allocated {
  std::uint64_t count = 0;
  std::uint64_t bytes = 0;
};

/// What one thread allocated since it began.
struct ThreadAllocations {
  int thread_id = 0;
  std::string name;  ///< empty: it has ended
  Allocated own;
  Allocated in_calls;  ///< while it had a CountAsCall
};

/// Of all threads that ever allocated. Thread: any; others go on counting meanwhile.
std::vector<ThreadAllocations> allocations();

/// While one lives, what this thread allocates is for a call that begins, not for the thread's own work.
class CountAsCall {
 public:
  CountAsCall();
  ~CountAsCall();
  CountAsCall(const CountAsCall&) = delete;
  CountAsCall& operator=(const CountAsCall&) = delete;
};

/// A prime: what allocates in a fixed order is met at each of its allocations in turn.
constexpr std::uint64_t sample_interval = 997;
constexpr std::size_t sample_frames = 24;

struct Sample {
  int thread_id = 0;
  bool in_call = false;
  std::size_t bytes = 0;
  std::size_t depth = 0;
  void* frames[sample_frames] = {};  ///< return addresses, innermost first
};

/// Keeps the stack of each sample_interval-th allocation of each thread from now on, until the next call.
void keep_stacks(bool keep);
/// Requires: none are kept at the time.
std::vector<Sample> samples();

}  // namespace flotilla::bench
