#include "raft/tail.hpp"

#include <map>

#include "raft/cluster.hpp"
#include "raft/durability.hpp"
#include "raft/random.hpp"

using namespace flotilla;
using namespace flotilla::raft;
using namespace flotilla::raft::testing;

TEST_SUITE_BEGIN("raft.tail");

TEST_CASE("a term that is not known is none, never zero (B7, E11)") {
  Tail tail(Index{10}, Term{3}, 0);
  tail.append(entry(11, 3));
  tail.append(entry(12, 5));
  CHECK_FALSE(tail.term_at(Index{9}).has_value());
  CHECK(tail.term_at(Index{10}) == Term{3});
  CHECK(tail.term_at(Index{12}) == Term{5});
  CHECK_FALSE(tail.term_at(Index{13}).has_value());
}

TEST_CASE("only the beginning of the log has term zero") {
  const Tail tail(Index{}, Term{}, 0);
  CHECK(tail.term_at(Index{}) == Term{});
  CHECK(tail.last_index() == Index{});
}

TEST_CASE("a slice stops at the first entry that does not fit, but has at least one (B5)") {
  Tail tail(Index{}, Term{}, 0);
  tail.append(entry(1, 1, "a"));
  tail.append(entry(2, 1, std::string(1000, 'b')));
  tail.append(entry(3, 1, "c"));
  CHECK(tail.slice(Index{1}, Index{3}, 100).size() == 1);
  CHECK(tail.slice(Index{2}, Index{3}, 1).size() == 1);
  CHECK(tail.slice(Index{1}, Index{3}, 1u << 20).size() == 3);
  CHECK(tail.slice(Index{1}, Index{2}, 1u << 20).size() == 2);
}

TEST_CASE("entries leave memory, their terms and the time stay") {
  Tail tail(Index{}, Term{}, 0);
  for (std::uint64_t i = 1; i <= 10; ++i) {
    Entry next = entry(i, 1 + i / 4, "x");
    next.time = 100 + i;
    tail.append(next);
  }
  tail.evict(Index{6}, 0);
  CHECK(tail.memory_first_index() == Index{7});
  CHECK_FALSE(tail.in_memory(Index{6}));
  CHECK(tail.term_at(Index{3}) == Term{1});
  CHECK(tail.bytes(Index{6}, Index{10}) == 4 * (record_header_bytes + 1));
  tail.evict(Index{10}, 0);
  CHECK(tail.last_time() == 110);
  CHECK(tail.last_term() == Term{3});
  tail.forget_terms(Index{5});
  CHECK_FALSE(tail.term_at(Index{4}).has_value());
  CHECK(tail.term_at(Index{5}) == Term{2});
  CHECK(tail.broken() == nullptr);
}

TEST_CASE("random appends, truncations and evictions agree with a plain vector of terms (B21)") {
  Random random(7);
  for (int run = 0; run < 200; ++run) {
    Tail tail(Index{5}, Term{2}, 0);
    std::vector<std::uint64_t> terms{2};  // of 5 ...
    for (int step = 0; step < 60; ++step) {
      const std::uint64_t last = 4 + terms.size();
      switch (random.below(4)) {
        case 0:
        case 1: {
          const std::uint64_t term = terms.back() + (random.below(4) == 0 ? 1 : 0);
          tail.append(entry(last + 1, term, std::string(random.below(9), 'x')));
          terms.push_back(term);
          break;
        }
        case 2: {
          const std::uint64_t lowest = tail.memory_first_index().value - 1;
          const std::uint64_t kept = lowest + random.below(last - lowest + 1);
          tail.truncate(Index{kept});
          terms.resize(kept - 4);
          break;
        }
        case 3: tail.evict(Index{5 + random.below(last - 4)}, 60); break;
      }
      const char* broken = tail.broken();
      REQUIRE_MESSAGE(broken == nullptr, broken);
      for (std::uint64_t index = 5; index < 5 + terms.size(); ++index) {
        REQUIRE(tail.term_at(Index{index}) == Term{terms[index - 5]});
      }
      const std::uint64_t wanted = 1 + random.below(terms.back() + 1);
      std::optional<Index> expected;
      for (std::uint64_t index = 5; index < 5 + terms.size(); ++index) {
        if (terms[index - 5] <= wanted) expected = Index{index};
      }
      REQUIRE(tail.last_not_above(Term{wanted}, tail.last_index()) == expected);
    }
  }
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("raft.durability");

TEST_CASE("entries are durable once their write and all before it are") {
  Durability durability(Index{3});
  const std::uint64_t first = durability.take(Index{5});
  const std::uint64_t second = durability.take(Index{9});
  CHECK(durability.complete(first));
  CHECK(durability.stable_index() == Index{5});
  CHECK(durability.complete(second));
  CHECK(durability.stable_index() == Index{9});
  CHECK_FALSE(durability.complete(first));
}

TEST_CASE("a write that completes late proves nothing of entries that replaced its own (B9, B11)") {
  Durability durability(Index{3});
  const std::uint64_t old_write = durability.take(Index{9});
  durability.truncate(Index{5});
  const std::uint64_t new_write = durability.take(Index{9});
  durability.complete(old_write);
  CHECK(durability.stable_index() == Index{5});
  durability.complete(new_write);
  CHECK(durability.stable_index() == Index{9});
}

TEST_CASE("what was durable is not any more once it left the log") {
  Durability durability(Index{9});
  durability.truncate(Index{5});
  CHECK(durability.stable_index() == Index{5});
  CHECK(durability.queued_index() == Index{5});
}

TEST_CASE("Readies without entries are complete with those before them") {
  Durability durability(Index{3});
  durability.take(Index{5});
  const std::uint64_t empty = durability.take(Index{5});
  CHECK(durability.complete(empty));
  CHECK(durability.stable_index() == Index{5});
  CHECK(durability.persisted() == 2);
}

TEST_SUITE_END();
