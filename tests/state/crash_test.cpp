// The applied index and the data agree after the process was killed at any moment.
#include <doctest/doctest.h>

#include <sys/mman.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <random>
#include <thread>

#include "state/support.hpp"

using namespace state_test;

namespace {

constexpr std::uint64_t session_id = 9;

/// The log of this test: a session, then commands that each leave a trace by which their number is known.
Entry entry_at(std::uint64_t index) {
  if (index == 1) return session_entry(1, 1, 1, session_id);
  const std::string number = std::to_string(index);
  const CallId call{session_id, index};
  const std::uint64_t acknowledged = index > 50 ? index - 50 : 0;
  if (index % 5 == 0) return command_entry(index, "write_and_refuse", {"refused", "k", number}, call, acknowledged);
  const std::string table = index % 7 == 0 ? "t" + std::to_string(index / 100) : "t";
  return command_entry(index, "count", {table, "n"}, call, acknowledged);
}

/// How far a process certainly got.
struct Got {
  std::atomic<std::uint64_t> applied = 0;
  std::atomic<std::uint64_t> checkpoint = 0;
};

/// Applies the log from where it stands until it is killed, with a checkpoint every now and then.
[[noreturn]] void apply_for_ever(const StoreOptions& options, Got& got) {
  auto store = Store::open(options, test_commands()).value();
  std::mt19937_64 random(got.applied.load());
  got.applied = store->applied().index.value;
  for (;;) {
    std::vector<Entry> entries;
    const std::uint64_t first = store->applied().index.value + 1;
    for (std::uint64_t i = 0; i < 1 + random() % 20; ++i) entries.push_back(entry_at(first + i));
    if (!store->apply(entries)) ::_exit(1);
    got.applied = store->applied().index.value;
    if (random() % 4 != 0) continue;
    if (!store->checkpoint()) ::_exit(1);
    got.checkpoint = store->applied().index.value;
  }
}

}  // namespace

TEST_SUITE_BEGIN("state.crash");

TEST_CASE("a process killed at any moment leaves data and applied index that agree") {
  for (const bool sync : {false, true}) {
    CAPTURE(sync);
    TempDir dir;
    StoreOptions options = options_in(dir.path() / "state");
    options.sync = sync;
    void* const shared = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(shared != MAP_FAILED);
    auto& got = *new (shared) Got;
    std::mt19937_64 random(first_seed());
    std::uint64_t last = 0;
    for (int round = 0; round < 12; ++round) {
      CAPTURE(round);
      const std::uint64_t from = last;
      got.applied = from;
      const pid_t child = ::fork();
      REQUIRE(child >= 0);
      if (child == 0) apply_for_ever(options, got);
      // Some way into its work, at a point that differs from round to round; each second time behind a checkpoint.
      const std::uint64_t enough = from + 1 + random() % 60;
      const bool moves_on = round % 2 == 0;
      const auto far_enough = [&] { return got.applied >= enough && (!moves_on || got.checkpoint > from); };
      int status = 0;
      while (!far_enough() && ::waitpid(child, &status, WNOHANG) == 0) std::this_thread::yield();
      for (std::uint64_t spin = random() % 3000; spin > 0; --spin) std::atomic_signal_fence(std::memory_order_seq_cst);
      REQUIRE(::kill(child, SIGKILL) == 0);
      REQUIRE(::waitpid(child, &status, 0) == child);
      REQUIRE(WIFSIGNALED(status));

      auto store = Store::open(options, test_commands()).value();
      const std::uint64_t index = store->applied().index.value;
      CHECK(index >= got.checkpoint);
      CHECK(index <= got.applied + 20);  // no more than was applied
      CHECK(index >= last + (moves_on ? 1 : 0));
      last = index;
      // The same log applied without any crash is the reference.
      Rig reference;
      std::vector<Entry> entries;
      for (std::uint64_t i = 1; i <= index; ++i) entries.push_back(entry_at(i));
      if (!entries.empty()) REQUIRE(reference.apply(entries));
      CHECK(store->applied().term == reference.store().applied().term);
      CHECK(store->applied().time == reference.store().applied().time);
      const auto hash = Store::content_hash(store->read().value()).value();
      CHECK(hash == Store::content_hash(reference.read()).value());
      store.reset();
      reference.close();
      CHECK(dump(options.directory) == dump(reference.options().directory));
    }
    ::munmap(shared, 4096);
  }
}

TEST_SUITE_END();
