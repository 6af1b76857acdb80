// What a member finds in its directory when it starts.
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include "db_fixture.hpp"
#include "node/start.hpp"

using namespace flotilla;
using namespace flotilla::test;

namespace {

/// One member that founds, opened `times` times; writes a little at the last.
Options written(const std::filesystem::path& directory, int times) {
  Options options = test_options(directory);
  options.found = true;
  for (int time = 1; time <= times; ++time) {
    auto db = DB::open(options, test_commands());
    REQUIRE(db);
    REQUIRE(db->command("put", {"key", "value"}).get());
    if (time < times) continue;
    for (int i = 0; i < 5; ++i) REQUIRE(db->command("append", {"key", "x"}).get());
  }
  return options;
}

Errc refusal_of(const Options& options) {
  const auto db = DB::open(options, test_commands());
  REQUIRE_FALSE(db);
  return static_cast<Errc>(db.error().code().value());
}

}  // namespace

TEST_SUITE_BEGIN("node.start");

TEST_CASE("a directory is one member's at a time, whatever else of it is open") {
  const TempDir directory;
  const auto held = node::DirectoryLock::take(directory.path());
  REQUIRE(held);
  const auto second = node::DirectoryLock::take(directory.path());
  REQUIRE_FALSE(second);
  CHECK(second.error() == Errc::in_use);
}

TEST_CASE("a log without the file that says whose it is is not taken for the leftover of a first start") {
  const TempDir directory;
  const Options options = written(directory / "member", 1);
  std::filesystem::remove(directory / "member" / "node");
  CHECK(refusal_of(options) == Errc::damaged);
  std::filesystem::remove_all(directory / "member" / "state");
  std::filesystem::remove_all(directory / "member" / "state.1");
  CHECK(refusal_of(options) == Errc::damaged);
}

TEST_CASE("a database beside a log that has another term there is not opened") {
  const TempDir directory;
  const Options options = written(directory / "member", 3);
  written(directory / "other", 1);
  std::filesystem::remove_all(directory / "member" / "state.1");
  std::filesystem::copy(directory / "other" / "state.1", directory / "member" / "state.1");
  CHECK(refusal_of(options) == Errc::damaged);
}

TEST_CASE("a member whose log was emptied does not start, also if it had applied nothing yet (A2)") {
  const TempDir directory;
  Options options = test_options(directory / "joiner");
  options.listen = "127.0.0.1:0";
  options.join = {"127.0.0.1:1"};  // nobody is there
  {
    auto joiner = DB::open(options, test_commands());
    REQUIRE(joiner);
  }
  for (const auto& segment : std::filesystem::directory_iterator(directory / "joiner" / "log")) {
    std::filesystem::remove(segment.path());
  }
  const auto again = DB::open(options, test_commands());
  REQUIRE_FALSE(again);
  CHECK(again.error() == Errc::damaged);
}

TEST_SUITE_END();
