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

TEST_CASE("a directory that a killed first start left behind is durable before the next relies on it (E7)") {
  struct Watched final : log::FileSystem {
    std::vector<std::string> synced;
    log::FileSystem& real = log::posix_file_system();

    Result<std::unique_ptr<log::File>> open(const std::string& path, Mode mode) override {
      return real.open(path, mode);
    }
    Result<void> rename(const std::string& from, const std::string& to) override { return real.rename(from, to); }
    Result<void> remove(const std::string& path) override { return real.remove(path); }
    Result<void> sync_directory(const std::string& directory) override {
      synced.push_back(directory);
      return real.sync_directory(directory);
    }
    Result<void> make_directory(const std::string& path) override { return real.make_directory(path); }
    Result<std::vector<std::string>> list(const std::string& directory) override { return real.list(directory); }
    Result<bool> exists(const std::string& path) override { return real.exists(path); }
  };
  const TempDir directory;
  Options options = test_options(directory / "deep" / "member");
  options.found = true;
  std::filesystem::create_directories(directory / "deep");
  Watched files;
  SUBCASE("of its parent") {}
  SUBCASE("of the member itself") {
    std::filesystem::create_directory(options.data_dir);
    REQUIRE(node::start({.files = files, .random = 1}, options, test_commands()));
    REQUIRE_FALSE(files.synced.empty());
    CHECK(files.synced.front() == options.data_dir.parent_path());
    return;
  }
  REQUIRE(node::start({.files = files, .random = 1}, options, test_commands()));
  REQUIRE(files.synced.size() > 2);
  CHECK(files.synced[0] == directory.path());
  CHECK(files.synced[1] == options.data_dir.parent_path());
}

TEST_CASE("a lone voter's start applies all that its log holds, also what no commit index covers (P1)") {
  const TempDir directory;
  Options options = test_options(directory / "member");
  options.found = true;
  const auto start = [&] {
    return node::start({.files = log::posix_file_system(), .random = 1}, options, test_commands()).value();
  };
  Index last;
  {
    const node::Started first = start();
    const std::string_view args[] = {"key", "value"};
    raft::Entry entry{.term = first.log->recovered().last_term,
                      .index = first.log->last_index().next(),
                      .type = raft::EntryType::command,
                      .payload = state::encode_command({}, 0, "put", args)};
    raft::seal(entry);
    last = entry.index;
    const log::Log::Write write{std::nullopt, {&entry, 1}, {}};
    REQUIRE(first.log->append({&write, 1}));
  }
  const node::Started again = start();
  CHECK(again.log->recovered().commit_index < last);
  CHECK(again.store->applied_index() == last);
  CHECK(again.store->read()->table("t").get("key") == "value");
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
