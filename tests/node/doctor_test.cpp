// What `flotilla doctor` says of a directory, and that it leaves it as it is.
#include "node/doctor.hpp"

#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>

#include <doctest/doctest.h>

#include "base/codec.hpp"
#include "db_fixture.hpp"
#include "log/format.hpp"
#include "node/start.hpp"
#include "state/checkpoint.hpp"

using namespace flotilla;
using namespace flotilla::test;
using flotilla::node::Examination;
using flotilla::node::examine;

namespace {

using Path = std::filesystem::path;

std::string read_file(const Path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void flip(const Path& path, std::uint64_t offset) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(offset));
  const char byte = static_cast<char>(file.get() ^ 1);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(byte);
  REQUIRE(file.flush());
}

/// Every name in it, and what stands there.
std::map<Path, std::string> everything(const Path& directory) {
  std::map<Path, std::string> all;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (entry.is_symlink()) {
      all[entry.path()] = std::filesystem::read_symlink(entry.path());
    } else {
      all[entry.path()] = entry.is_directory() ? "" : read_file(entry.path());
    }
  }
  return all;
}

/// Examines, and checks that nothing in the directory changed by it.
Examination examined(const Path& directory, bool content = true) {
  const auto before = everything(directory);
  Examination found = examine(directory, {.content = content});
  CHECK(everything(directory) == before);
  return found;
}

/// The only problem.
const Examination::Problem& problem_of(const Examination& found) {
  REQUIRE(found.problems.size() == 1);
  CHECK(found.start.empty());
  return found.problems.front();
}

bool says(const Examination& found, std::string_view text) {
  return std::any_of(found.start.begin(), found.start.end(),
                     [&](const std::string& step) { return step.find(text) != std::string::npos; });
}

/// A member that was alone and was closed; what it held.
struct Closed {
  TempDir dir;
  Path directory = dir / "member";
  Path segment = directory / "log" / log::segment_name(1);
  Options options = test_options(directory);
  std::uint64_t hash = 0;
  Index applied;

  Closed() {
    auto db = DB::open(options, test_commands());
    REQUIRE(db);
    for (int i = 0; i < 200; ++i) REQUIRE(db->command("put", {"key" + std::to_string(i), std::string(500, 'v')}).get());
    const auto txn = db->read();
    REQUIRE(txn);
    hash = state::Store::content_hash(*txn).value();
    applied = txn->index();
  }
  /// Takes the directory as it is while the member runs: of one that was killed.
  static void copy_killed(const Path& from, const Path& to) {
    std::filesystem::copy(from, to,
                          std::filesystem::copy_options::recursive | std::filesystem::copy_options::copy_symlinks);
  }
};

struct Ran {
  int status = -1;
  std::string output;
};

Ran run(const std::string& command) {
  Ran ran;
  std::FILE* const pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  char buffer[4096];
  for (std::size_t got = 0; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) ran.output.append(buffer, got);
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) ran.status = WEXITSTATUS(status);
  return ran;
}

Ran doctor(const std::string& words) {
  const char* const program = std::getenv("FLOTILLA_PROGRAM");
  REQUIRE_MESSAGE(program != nullptr, "FLOTILLA_PROGRAM names the program");
  return run(std::string(program) + " doctor " + words);
}

/// What an expression in Python says of the object `x` that doctor printed.
std::string of_json(const std::string& json, const TempDir& dir, const std::string& expression) {
  std::ofstream(dir / "json") << json;
  const Ran ran = run("python3 -c 'import json,sys; x=json.load(open(sys.argv[1])); print(" + expression + ")' " +
                      (dir / "json").string());
  REQUIRE(ran.status == 0);
  return ran.output.substr(0, ran.output.size() - 1);
}

}  // namespace

TEST_SUITE_BEGIN("node.doctor");

TEST_CASE("a closed member is sound: its log, its checkpoint and the hash of its content") {
  const Closed closed;
  const Examination found = examined(closed.directory);
  CHECK(found.sound());
  CHECK(found.locked);
  CHECK_FALSE(found.live);
  REQUIRE(found.identity);
  CHECK(found.identity->incarnation == 1);
  REQUIRE(found.log);
  CHECK(found.log->first_index == Index{1});
  CHECK(found.log->last_index >= closed.applied);
  CHECK_FALSE(found.torn_tail);
  REQUIRE(found.checkpoint);
  REQUIRE(found.content);
  CHECK(found.content->applied.index == found.checkpoint->index);
  CHECK(found.content->hash == closed.hash);
  REQUIRE(found.content->tables.size() == 1);
  CHECK(found.content->tables.front().pairs == 200);
  CHECK(says(found, "raises the incarnation to 2"));
  CHECK(says(found, "no other member"));
}

TEST_CASE("three members that were closed are sound, and equal at one index by their hash") {
  Cluster cluster(3);
  for (int i = 0; i < 20; ++i) REQUIRE(cluster[0].command("put", {std::to_string(i), "value"}).get());
  for (std::size_t i = 0; i < 3; ++i) REQUIRE(cluster[i].barrier().get());
  for (std::size_t i = 0; i < 3; ++i) cluster.stop(i);
  std::map<Index, std::uint64_t> hashes;
  for (std::size_t i = 0; i < 3; ++i) {
    const Examination found = examined(cluster.options(i).data_dir);
    REQUIRE(found.sound());
    CHECK(says(found, "looks for the leader of its 3 members"));
    CHECK(found.content->applied.configuration.members.size() == 3);
    const auto& hash = hashes.emplace(found.content->applied.index, *found.content->hash).first->second;
    CHECK(hash == found.content->hash);
  }
}

TEST_CASE("of a member that was killed it says what a start applies again") {
  TempDir dir;
  Options options = test_options(dir / "running");
  options.checkpoint_interval = std::chrono::hours(1);
  auto db = DB::open(options, test_commands());
  REQUIRE(db);
  for (int i = 0; i < 10; ++i) REQUIRE(db->command("put", {"k", std::to_string(i)}).get());
  Closed::copy_killed(dir / "running", dir / "killed");
  const Examination found = examined(dir / "killed");
  REQUIRE(found.sound());
  CHECK(found.checkpoint->index < found.log->last_index);
  CHECK(says(found, "applies entries " + std::to_string(found.checkpoint->index.value + 1) + " to " +
                        std::to_string(found.log->last_index.value)));
}

TEST_CASE("a torn tail is named by its place, is no damage, and stays") {
  const Closed closed;
  const Examination whole = examined(closed.directory);
  REQUIRE(whole.sound());
  // Behind the chain, where a block would follow.
  const std::string bytes = read_file(closed.segment);
  const std::uint64_t end = log::whole_sectors(bytes.find_last_not_of('\0') + 1);
  flip(closed.segment, end + 5);
  const Examination found = examined(closed.directory);
  CHECK(found.sound());
  REQUIRE(found.torn_tail);
  CHECK(found.torn_tail->segment == log::segment_name(1));
  CHECK(found.torn_tail->offset == end);
  CHECK(says(found, "torn tail"));
}

TEST_CASE("a flipped bit in a settled block is damage, named by segment and offset") {
  const Closed closed;
  flip(closed.segment, 1024 + 140);
  const Examination found = examined(closed.directory);
  const auto& problem = problem_of(found);
  CHECK(problem.part == "log");
  CHECK(problem.error == Errc::damaged);
  CHECK(problem.error.message().find(closed.segment.string() + " at ") != std::string::npos);
  CHECK_FALSE(found.log);
  CHECK(found.segments.size() >= 1);
  CHECK(found.content);  // the rest is still told
  CHECK(DB::open(closed.options, test_commands()).error().message() == problem.error.message());
}

TEST_CASE("a missing or damaged checkpoint is what a start would refuse, in its words") {
  const Closed closed;
  const Path checkpoint = closed.directory / "state" / "checkpoint";
  SUBCASE("missing") {
    std::filesystem::remove(checkpoint);
  }
  SUBCASE("damaged") {
    flip(checkpoint, 60);
  }
  const Examination found = examined(closed.directory);
  CHECK(problem_of(found).part == "checkpoint");
  CHECK(DB::open(closed.options, test_commands()).error().message() == problem_of(found).error.message());
}

TEST_CASE("a damaged identity is refused") {
  const Closed closed;
  flip(closed.directory / "node", 35);
  const Examination found = examined(closed.directory);
  CHECK(found.problems.front().part == "identity");
  CHECK(DB::open(closed.options, test_commands()).error().message() == found.problems.front().error.message());
}

TEST_CASE("a flipped byte in the header of a page in use is found, without LMDB") {
  const Closed closed;
  const auto meta = state::read_checkpoint(closed.directory / "state").value().meta;
  const auto root = get_fixed<std::uint64_t>(meta.main_tree().data() + 40);  // MDB_db's md_root
  flip(closed.directory / "state" / "data.mdb", root * meta.page_bytes() + 12);
  const Examination found = examined(closed.directory);
  CHECK(problem_of(found).part == "database");
  CHECK(problem_of(found).error.message().find("page " + std::to_string(root) + " at ") != std::string::npos);
  // It was not asked about the content: the checkpoint says nothing of the pages.
  CHECK(examined(closed.directory, false).sound());
}

TEST_CASE("a database that is not where its checkpoint says is refused") {
  const Closed closed;
  auto checkpoint = state::read_checkpoint(closed.directory / "state").value();
  checkpoint.index = checkpoint.index.previous();
  REQUIRE(state::write_checkpoint(closed.directory / "state", checkpoint, false));
  const Examination found = examined(closed.directory);
  CHECK(problem_of(found).part == "database");
  CHECK(DB::open(closed.options, test_commands()).error().message() == problem_of(found).error.message());
}

TEST_CASE("a database beside the log of another member is refused") {
  const Closed closed;
  TempDir dir;
  {
    Options options = test_options(dir / "other");
    auto db = DB::open(options, test_commands());
    REQUIRE(db);
    REQUIRE(db->command("put", {"k", "v"}).get());
  }
  std::filesystem::remove_all(closed.directory / "log");
  std::filesystem::copy(dir / "other" / "log", closed.directory / "log");
  const Examination found = examined(closed.directory);
  CHECK(problem_of(found).part == "log");
  CHECK(DB::open(closed.options, test_commands()).error().message() == problem_of(found).error.message());
}

TEST_CASE("an installed snapshot whose log has not followed: a start begins the log anew") {
  const Closed closed;
  TempDir dir;
  Options options = test_options(dir / "joiner");
  options.listen = "127.0.0.1:0";
  options.join = {"127.0.0.1:1"};  // nobody is there
  REQUIRE(DB::open(options, test_commands()));
  const Path state = dir / "joiner" / "state";
  std::filesystem::copy(closed.directory / "state" / "data.mdb", state / "data.mdb",
                        std::filesystem::copy_options::overwrite_existing);
  auto checkpoint = state::read_checkpoint(closed.directory / "state").value();
  checkpoint.installed = true;
  REQUIRE(state::write_checkpoint(state, checkpoint, false));
  std::filesystem::create_directory(dir / "joiner" / "state.7.tmp");

  const Examination found = examined(dir / "joiner");
  CHECK(found.sound());
  CHECK(found.checkpoint->installed);
  CHECK(found.leftovers == std::vector<std::string>{"state.7.tmp"});
  CHECK(says(found, "removes state.7.tmp"));
  CHECK(says(found, "begins the log anew after entry " + std::to_string(checkpoint.index.value)));
  const auto started = node::start({.files = log::posix_file_system(), .random = 1}, options, test_commands());
  REQUIRE(started);
  CHECK(started->restored.first_index == checkpoint.index.next());
}

TEST_CASE("a member that was removed is told so") {
  Cluster cluster(3);
  const std::size_t gone = cluster.follower();
  REQUIRE(cluster[cluster.leader()].remove(cluster.id(gone)).get());
  eventually([&] { return cluster[gone].status().fault.has_value(); });
  cluster.stop(gone);
  const Examination found = examined(cluster.options(gone).data_dir);
  CHECK(problem_of(found).error == Errc::removed);
}

TEST_CASE("an empty directory is sound: a start makes a member there") {
  const TempDir directory;
  const Examination found = examined(directory.path());
  CHECK(found.sound());
  CHECK_FALSE(found.locked);
  CHECK(says(found, "founds a cluster of one, or joins one"));
  CHECK_FALSE(std::filesystem::exists(directory / "LOCK"));
}

TEST_CASE("without data/node, or without its log, a member's directory is refused") {
  const Closed closed;
  SUBCASE("identity") {
    std::filesystem::remove(closed.directory / "node");
  }
  SUBCASE("log") {
    std::filesystem::remove_all(closed.directory / "log");
  }
  SUBCASE("segments") {
    std::filesystem::remove(closed.segment);
  }
  const Examination found = examined(closed.directory);
  REQUIRE_FALSE(found.sound());
  CHECK(DB::open(closed.options, test_commands()).error().message() == found.problems.front().error.message());
}

TEST_CASE("no directory at all is a problem") {
  const TempDir directory;
  const Examination found = examine(directory / "none", {});
  CHECK(problem_of(found).error == Errc::not_found);
}

TEST_CASE("while a directory is examined no member starts in it, and others may examine it, too") {
  const Closed closed;
  const auto held = node::DirectoryLock::share(closed.directory);
  REQUIRE(held);
  CHECK(examined(closed.directory).sound());
  const auto db = DB::open(closed.options, test_commands());
  REQUIRE_FALSE(db);
  CHECK(db.error() == Errc::in_use);
  CHECK(db.error().message().find("doctor") != std::string::npos);
}

TEST_CASE("of a running member it tells a moment, by which process, and does not disturb it") {
  TempDir dir;
  const Options options = test_options(dir / "member");
  auto db = DB::open(options, test_commands());
  REQUIRE(db);
  for (int i = 0; i < 10; ++i) REQUIRE(db->command("put", {std::to_string(i), "v"}).get());
  const Ran ran = doctor("--json " + (dir / "member").string());
  CHECK(ran.status == 0);
  CHECK(of_json(ran.output, dir, "x[\"live\"][\"process\"]") == std::to_string(::getpid()));
  CHECK(of_json(ran.output, dir, "x[\"content\"][\"tables\"][0][\"pairs\"]") == "10");
  CHECK(of_json(ran.output, dir, "x[\"content\"][\"index\"]") == std::to_string(db->status().applied_index.value));
  CHECK(of_json(ran.output, dir, "x[\"log\"], x[\"start\"], x[\"content\"][\"hash\"]") == "None [] None");
  CHECK(of_json(ran.output, dir, "x[\"segments\"][0][\"first_block\"]") == "1");
  CHECK(doctor((dir / "member").string()).output.find("a moment of a member that goes on") != std::string::npos);
  REQUIRE(db->command("put", {"after", "v"}).get());
  // In the member's own process LMDB must not open the file a second time.
  CHECK(examine(dir / "member", {}).problems.front().error == Errc::in_use);
  REQUIRE(db->command("put", {"later", "v"}).get());
}

TEST_CASE("the program: exit status, JSON, and help") {
  const Closed closed;
  const Ran sound = doctor("--json " + closed.directory.string());
  CHECK(sound.status == 0);
  CHECK(of_json(sound.output, closed.dir, "x[\"sound\"], x[\"live\"], x[\"locked\"], x[\"database\"]") ==
        "True None True state.1");
  char hash[17];
  std::snprintf(hash, sizeof hash, "%016llx", static_cast<unsigned long long>(closed.hash));
  CHECK(of_json(sound.output, closed.dir, "x[\"content\"][\"hash\"]") == hash);
  CHECK(of_json(doctor("--no-content --json " + closed.directory.string()).output, closed.dir, "x[\"content\"]") ==
        "None");
  CHECK(doctor(closed.directory.string()).output.find("verdict     sound") != std::string::npos);
  CHECK(doctor("--help").status == 0);
  CHECK(doctor("2>&1").status == 2);
  CHECK(doctor("--wrong " + closed.directory.string() + " 2>&1").status == 2);

  flip(closed.segment, 1024 + 140);
  std::filesystem::rename(closed.directory, closed.dir / "odd \"name\"\n");
  const Ran damaged = doctor("--json '" + (closed.dir / "odd \"name\"\n").string() + "'");
  CHECK(damaged.status == 1);
  CHECK(of_json(damaged.output, closed.dir,
                "x[\"sound\"], x[\"problems\"][0][\"part\"], x[\"problems\"][0][\"code\"]") == "False log 33");
  CHECK(of_json(damaged.output, closed.dir, "x[\"directory\"]") == (closed.dir / "odd \"name\"\n").string());
}

TEST_CASE("LMDB's own tools open data/state") {
  const Closed closed;
  const std::string state = (closed.directory / "state").string();
  const Ran stat = run("mdb_stat -s t " + state);
  CHECK(stat.status == 0);
  CHECK(stat.output.find("Entries: 200") != std::string::npos);
  const Ran dump = run("mdb_dump -p -s t " + state);
  CHECK(dump.status == 0);
  CHECK(dump.output.find(" key199\n " + std::string(500, 'v') + "\n") != std::string::npos);
  // And the member starts again after them.
  CHECK(DB::open(closed.options, test_commands()));
}

TEST_SUITE_END();
