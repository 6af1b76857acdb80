#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <flotilla/flotilla.hpp>
#include <flotilla/standard.hpp>

#include "support/temp_dir.hpp"

using namespace flotilla;
using flotilla::test::TempDir;

namespace {

Options options_in(const TempDir& directory) {
  Options options;
  options.data_dir = directory / "data";
  options.map_size = 64u << 20;
  options.segment_bytes = 1u << 20;
  options.log_sink = [](LogLevel, std::string_view) {};
  return options;
}

}  // namespace

TEST_SUITE("lib.standard_db") {
  TEST_CASE("each command has a typed form, and what it did is in the next snapshot") {
    const TempDir directory;
    DB db = DB::open(options_in(directory), standard_commands()).value();
    StandardDB tables(db);
    CHECK(tables.put("t", "k", "a").has_value());
    CHECK(tables.get("t", "k").value() == "a");
    CHECK(tables.get("t", "none").value() == std::nullopt);
    CHECK(tables.get("none", "k").value() == std::nullopt);
    CHECK_FALSE(tables.put_if_absent("t", "k", "b").value());
    CHECK(tables.put_if_absent("t", "l", "b").value());
    CHECK(tables.compare_and_swap("t", "k", "x", "c").value() == Swap{false, "a"});
    CHECK(tables.compare_and_swap("t", "k", "a", "c").value() == Swap{true, "c"});
    CHECK(tables.compare_and_swap("t", "m", "a", "c").value() == Swap{false, std::nullopt});
    CHECK(tables.compare_and_swap("t", "m", std::nullopt, "").value() == Swap{true, ""});
    CHECK(tables.compare_and_swap("t", "m", std::nullopt, "c").value() == Swap{false, ""});
    CHECK_FALSE(tables.compare_and_remove("t", "k", "a").value());
    CHECK(tables.compare_and_remove("t", "k", "c").value());
    CHECK(tables.remove("t", "l").value());
    CHECK_FALSE(tables.remove("t", "l").value());
    CHECK(tables.noop().has_value());
    CHECK(tables.get("t", "m", Consistency::linearizable).value() == "");
    CHECK(tables.get("t", "k", Consistency::linearizable).value() == std::nullopt);
  }

  TEST_CASE("an error keeps its code") {
    const TempDir directory;
    DB db = DB::open(options_in(directory), standard_commands()).value();
    StandardDB tables(db);
    CHECK(tables.put("t", "", "v").error() == Errc::invalid_argument);
    CHECK(tables.put_if_absent("__t", "k", "v").error() == Errc::invalid_argument);
    REQUIRE(db.close().has_value());
    CHECK(tables.remove("t", "k").error() == Errc::shutting_down);
    CHECK(tables.get("t", "k").error() == Errc::closed);
  }

  TEST_CASE("counting by compare_and_swap from many threads loses no count") {
    const TempDir directory;
    DB db = DB::open(options_in(directory), standard_commands()).value();
    constexpr int threads = 4, rounds = 25;
    const auto count_up = [&] {
      StandardDB tables(db);
      std::optional<Bytes> seen;
      for (int round = 0; round < rounds;) {
        const Bytes next = std::to_string(std::stoi(seen.value_or("0")) + 1);
        const Swap swap = tables.compare_and_swap("t", "counter", seen, next).value();
        if (swap.swapped) ++round;
        seen = swap.value;
      }
    };
    std::vector<std::thread> all;
    for (int thread = 0; thread < threads; ++thread) all.emplace_back(count_up);
    for (std::thread& thread : all) thread.join();
    CHECK(StandardDB(db).get("t", "counter").value() == std::to_string(threads * rounds));
  }
}
