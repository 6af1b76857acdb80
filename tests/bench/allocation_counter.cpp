#include "bench/allocation_counter.hpp"

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <new>

#include <execinfo.h>
#include <fmt/format.h>
#include <unistd.h>

namespace flotilla::bench {
namespace {

constexpr std::size_t threads_max = 1024;
constexpr std::size_t samples_max = 1u << 15;

struct Counter {
  // Written by one thread alone.
  std::atomic<std::uint64_t> count = 0;
  std::atomic<std::uint64_t> bytes = 0;

  void add(std::size_t more) {
    count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    bytes.store(bytes.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
  }
  Allocated value() const { return {count.load(std::memory_order_relaxed), bytes.load(std::memory_order_relaxed)}; }
};

/// One thread's. Stays when the thread ends.
struct alignas(64) Slot {
  std::atomic<int> thread_id = 0;
  Counter own;
  Counter in_calls;
  bool calling = false;
  std::uint64_t until_sample = sample_interval;
};

constinit Slot slots[threads_max];
constinit std::atomic<std::size_t> slots_used = 0;
constinit thread_local Slot* slot_of_this_thread = nullptr;

constinit Sample kept[samples_max];
constinit std::atomic<std::size_t> kept_count = 0;
constinit std::atomic<bool> keeping = false;

Slot& slot() {
  if (slot_of_this_thread == nullptr) {
    const std::size_t number = slots_used.fetch_add(1);
    if (number >= threads_max) std::abort();
    slot_of_this_thread = &slots[number];
    slot_of_this_thread->thread_id.store(::gettid(), std::memory_order_release);
  }
  return *slot_of_this_thread;
}

void keep_stack(const Slot& from, std::size_t bytes) {
  const std::size_t number = kept_count.fetch_add(1);
  if (number >= samples_max) return;
  Sample& sample = kept[number];
  sample.thread_id = from.thread_id.load(std::memory_order_relaxed);
  sample.in_call = from.calling;
  sample.bytes = bytes;
  sample.depth = static_cast<std::size_t>(::backtrace(sample.frames, sample_frames));
}

void* counted(void* memory, std::size_t bytes) {
  if (memory == nullptr) throw std::bad_alloc();
  Slot& here = slot();
  (here.calling ? here.in_calls : here.own).add(bytes);
  if (keeping.load(std::memory_order_relaxed) && --here.until_sample == 0) {
    here.until_sample = sample_interval;
    keep_stack(here, bytes);
  }
  return memory;
}

std::string thread_name(int thread_id) {
  std::string name;
  std::getline(std::ifstream(fmt::format("/proc/self/task/{}/comm", thread_id)), name);
  return name;
}

}  // namespace

std::vector<ThreadAllocations> allocations() {
  std::vector<ThreadAllocations> all;
  const std::size_t used = slots_used.load();
  for (const Slot& one : std::span(slots, used)) {
    const int thread_id = one.thread_id.load(std::memory_order_acquire);
    if (thread_id != 0) all.push_back({thread_id, thread_name(thread_id), one.own.value(), one.in_calls.value()});
  }
  return all;
}

CountAsCall::CountAsCall() {
  slot().calling = true;
}
CountAsCall::~CountAsCall() {
  slot().calling = false;
}

void keep_stacks(bool keep) {
  void* frame = nullptr;
  ::backtrace(&frame, 1);  // the first call loads a library, and allocates
  if (keep) kept_count = 0;
  keeping = keep;
}

std::vector<Sample> samples() {
  return {kept, kept + std::min(kept_count.load(), samples_max)};
}

}  // namespace flotilla::bench

void* operator new(std::size_t bytes) {
  return flotilla::bench::counted(std::malloc(bytes), bytes);
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  const auto step = static_cast<std::size_t>(alignment);
  return flotilla::bench::counted(std::aligned_alloc(step, (bytes + step - 1) / step * step), bytes);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
