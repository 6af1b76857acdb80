// Bad input through the public headers: each a clear, typed error, and nothing lost by it.
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <flotilla/flotilla.hpp>
#include <flotilla/standard.hpp>

#include "member_process.hpp"
#include "support/temp_dir.hpp"

using namespace flotilla;
using namespace std::chrono_literals;
using flotilla::test::TempDir;

namespace {

Options quiet_options(const std::filesystem::path& data_dir) {
  Options options;
  options.data_dir = data_dir;
  options.map_size = 64u << 20;
  options.segment_bytes = 1u << 20;
  options.log_sink = [](LogLevel, std::string_view) {};
  return options;
}

Options founder_options(const std::filesystem::path& data_dir) {
  Options options = quiet_options(data_dir);
  options.listen = "127.0.0.1:0";
  options.found = true;
  return options;
}

DB open(const Options& options, const Commands& commands = standard_commands()) {
  Result<DB> db = DB::open(options, commands);
  REQUIRE_MESSAGE(db.has_value(), (db ? "" : db.error().message()));
  return std::move(*db);
}

/// The code of a failed result; Errc 0 for one that succeeded.
template <class T>
Errc code_of(const Result<T>& result) {
  return result ? Errc{} : static_cast<Errc>(result.error().code().value());
}

void put(DB& db, std::string_view key, std::string_view value) {
  REQUIRE(db.command("put", {"t", key, value}).get().has_value());
}

std::string get(DB& db, std::string_view key) {
  return std::string(db.read().value().table("t").get(key).value_or("(none)"));
}

/// The segments of a log, oldest first.
std::vector<std::filesystem::path> segments(const std::filesystem::path& data_dir) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(data_dir / "log")) {
    if (entry.path().extension() == ".seg") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

TEST_SUITE("process.open") {
  TEST_CASE("a directory that another DB of this process has open is refused, and that DB is not disturbed") {
    const TempDir directory;
    DB first = open(quiet_options(directory / "data"));
    put(first, "k", "v");
    CHECK(code_of(DB::open(quiet_options(directory / "data"), standard_commands())) == Errc::in_use);
    put(first, "k", "w");
    CHECK(get(first, "k") == "w");
  }

  TEST_CASE("a directory that another process has open is refused, and the message names that process") {
    const TempDir directory;
    catalog::MemberProcess other(
        {std::getenv("FLOTILLA_CATALOGD"), directory.path(), catalog::free_loopback_address().value(), ""});
    REQUIRE(other.start().has_value());
    const auto refused = DB::open(quiet_options(directory / "data"), standard_commands());
    CHECK(code_of(refused) == Errc::in_use);
    CHECK(refused.error().message().find(std::to_string(other.pid())) != std::string::npos);
    CHECK(other.stop().value() == 0);
    CHECK(DB::open(quiet_options(directory / "data"), standard_commands()).has_value());
  }

  TEST_CASE("a directory that cannot be made or written is an I/O error that names it") {
    const TempDir directory;
    std::ofstream(directory / "file") << "not a directory";
    const auto below_a_file = DB::open(quiet_options(directory / "file" / "data"), standard_commands());
    CHECK(code_of(below_a_file) == Errc::io_error);
    CHECK(below_a_file.error().message().find("file") != std::string::npos);
    CHECK(code_of(DB::open(quiet_options(directory / "file"), standard_commands())) == Errc::io_error);
    if (::geteuid() == 0) return;  // the superuser may write anywhere
    std::filesystem::create_directory(directory / "closed");
    std::filesystem::permissions(directory / "closed", std::filesystem::perms::owner_read);
    CHECK(code_of(DB::open(quiet_options(directory / "closed" / "data"), standard_commands())) == Errc::io_error);
  }

  TEST_CASE("a damaged log is refused, and nothing is lost when the damage is mended") {
    const TempDir directory;
    {
      DB db = open(quiet_options(directory / "data"));
      for (int number = 0; number < 100; ++number) put(db, "k" + std::to_string(number), std::string(100, 'v'));
    }
    const std::filesystem::path segment = segments(directory / "data").at(0);
    std::fstream file(segment, std::ios::in | std::ios::out | std::ios::binary);
    // In the middle of what 100 puts wrote, each of them acknowledged and long followed by others.
    constexpr std::streamoff at = 100 * 512 / 2 + 256;
    REQUIRE(std::filesystem::file_size(segment) > 2 * at);
    const auto flip = [&] {
      file.seekg(at);
      const char byte = static_cast<char>(file.get() ^ 0x40);
      file.seekp(at);
      file.put(byte).flush();
    };
    flip();
    const auto refused = DB::open(quiet_options(directory / "data"), standard_commands());
    CHECK(code_of(refused) == Errc::damaged);
    CHECK_FALSE(refused.error().message().empty());
    flip();
    DB db = open(quiet_options(directory / "data"));
    for (int number = 0; number < 100; ++number) CHECK(get(db, "k" + std::to_string(number)) == std::string(100, 'v'));
  }

  TEST_CASE("an address in use is refused, and the directory can be opened elsewhere") {
    const TempDir directory;
    DB first = open(founder_options(directory / "first"));
    Options options = founder_options(directory / "second");
    options.listen = first.status().listen;
    CHECK(code_of(DB::open(options, standard_commands())) == Errc::address_in_use);
    options.listen = "127.0.0.1:0";
    DB second = open(options);
    put(second, "k", "v");
  }

  TEST_CASE("a malformed address and a missing directory are invalid arguments") {
    const TempDir directory;
    CHECK(code_of(DB::open(Options{}, standard_commands())) == Errc::invalid_argument);
    for (const char* address : {"nonsense", "127.0.0.1", ":", "127.0.0.1:99999", "[::1:80"}) {
      CAPTURE(address);
      Options options = founder_options(directory / "data");
      options.listen = address;
      CHECK(code_of(DB::open(options, standard_commands())) == Errc::invalid_argument);
    }
  }

  TEST_CASE("only loopback is listened on until the network is said to be trusted") {
    const TempDir directory;
    Options options = founder_options(directory / "data");
    options.listen = "0.0.0.0:0";
    CHECK(code_of(DB::open(options, standard_commands())) == Errc::invalid_argument);
  }

  TEST_CASE("a new member that was told neither to found nor to join is refused and leaves nothing behind") {
    const TempDir directory;
    Options options = founder_options(directory / "data");
    options.found = false;
    CHECK(code_of(DB::open(options, standard_commands())) == Errc::not_founded);
    options.found = true;
    {
      DB db = open(options);
      put(db, "k", "v");
    }
    // From then on it knows what it is.
    options.found = false;
    DB db = open(options);
    CHECK(get(db, "k") == "v");
  }

  TEST_CASE("a command without a name or a function makes opening fail") {
    const TempDir directory;
    const CommandFn nothing = [](WriteTxn&, const Args&) -> Result<Bytes> { return Bytes(); };
    for (const Commands& commands :
         {Commands().add("", nothing), Commands().add(std::string(129, 'n'), nothing), Commands().add("n", nullptr)}) {
      CHECK(code_of(DB::open(quiet_options(directory / "data"), commands)) == Errc::invalid_argument);
    }
  }
}

TEST_SUITE("process.calls") {
  TEST_CASE("an unknown command, wrong counts and values over a limit are refused, and the next call succeeds") {
    const TempDir directory;
    Options options = quiet_options(directory / "data");
    options.entry_bytes_max = 4096;
    DB db = open(options);
    CHECK(code_of(db.command("unheard-of", {}).get()) == Errc::unknown_command);
    CHECK(code_of(db.command("", {}).get()) == Errc::unknown_command);
    CHECK(code_of(db.command("put", {"t", "k"}).get()) == Errc::invalid_argument);
    CHECK(code_of(db.command("put", {"t", "k", "v", "w"}).get()) == Errc::invalid_argument);
    CHECK(code_of(db.command("put", {"t", std::string(key_bytes_max + 1, 'k'), "v"}).get()) == Errc::invalid_argument);
    CHECK(code_of(db.command("put", {"t", "", "v"}).get()) == Errc::invalid_argument);
    CHECK(code_of(db.command("put", {"__flotilla", "k", "v"}).get()) == Errc::invalid_argument);
    CHECK(code_of(db.command("put", {"t", "k", std::string(5000, 'v')}).get()) == Errc::entry_too_large);
    CHECK(db.read().value().tables().empty());
    put(db, std::string(key_bytes_max, 'k'), "v");
    put(db, "k", std::string(3000, 'v'));
    CHECK(get(db, "k").size() == 3000);
  }

  TEST_CASE("a waiting call from a completion ends as would_deadlock, and the thread goes on") {
    const TempDir directory;
    DB db = open(quiet_options(directory / "data"));
    std::promise<std::vector<Errc>> codes;
    db.command("put", {"t", "k", "v"}, [&](Result<Bytes> first) {
      std::vector<Errc> found{code_of(first)};
      found.push_back(code_of(db.command("put", {"t", "k", "w"}).get()));
      found.push_back(code_of(db.barrier().get()));
      found.push_back(code_of(db.read(Consistency::linearizable)));
      found.push_back(code_of(db.close()));
      // A local snapshot waits for nobody.
      found.push_back(code_of(db.read()));
      codes.set_value(std::move(found));
    });
    const std::vector<Errc> expected{
        Errc{}, Errc::would_deadlock, Errc::would_deadlock, Errc::would_deadlock, Errc::would_deadlock, Errc{}};
    CHECK(codes.get_future().get() == expected);
    CHECK(get(db, "k") == "v");
    put(db, "k", "x");
  }

  TEST_CASE("any call from inside a command ends as would_deadlock, and the command goes on") {
    const TempDir directory;
    DB* inner = nullptr;
    std::vector<Errc> codes;
    Commands commands = standard_commands();
    commands.add("call", [&](WriteTxn& txn, const Args&) -> Result<Bytes> {
      codes = {code_of(inner->command("noop", {}).get()), code_of(inner->read()),
               code_of(inner->read(Consistency::linearizable)), code_of(inner->barrier().get()),
               code_of(inner->close())};
      if (auto ok = txn.table("t").put("k", "v"); !ok) return fail(ok.error());
      return "done";
    });
    DB db = open(quiet_options(directory / "data"), commands);
    inner = &db;
    CHECK(db.command("call", {}).get().value() == "done");
    CHECK(codes == std::vector<Errc>(5, Errc::would_deadlock));
    CHECK(get(db, "k") == "v");
  }

  TEST_CASE("a snapshot outlives close() and the database itself") {
    const TempDir directory;
    auto db = std::make_unique<DB>(open(quiet_options(directory / "data")));
    put(*db, "k", "v");
    std::optional<ReadTxn> snapshot = std::move(db->read().value());
    const std::string_view view = snapshot->table("t").get("k").value();
    REQUIRE(db->close().has_value());
    CHECK(view == "v");
    db.reset();
    CHECK(view == "v");
    CHECK(snapshot->table("t").get("k") == "v");
    snapshot.reset();
    DB again = open(quiet_options(directory / "data"));
    CHECK(get(again, "k") == "v");
  }

  TEST_CASE("a closed database refuses every call and can be closed again") {
    const TempDir directory;
    DB db = open(quiet_options(directory / "data"));
    REQUIRE(db.close().has_value());
    CHECK(db.close().has_value());
    CHECK(code_of(db.command("noop", {}).get()) == Errc::shutting_down);
    CHECK(code_of(db.read()) == Errc::closed);
    CHECK_FALSE(db.barrier().get().has_value());
  }

  TEST_CASE("over the limit of open snapshots read() says so, and works again when one is gone") {
    const TempDir directory;
    Options options = quiet_options(directory / "data");
    options.readers_max = 3;
    DB db = open(options);
    put(db, "k", "v");
    std::vector<ReadTxn> open_ones;
    for (unsigned number = 0; number < options.readers_max; ++number) open_ones.push_back(db.read().value());
    CHECK(code_of(db.read()) == Errc::too_many_readers);
    put(db, "k", "w");
    open_ones.pop_back();
    CHECK(get(db, "k") == "w");
  }

  TEST_CASE("in a forked child every call says so, and the parent goes on") {
    const TempDir directory;
    DB db = open(quiet_options(directory / "data"));
    put(db, "k", "v");
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      // No checks in here: the child must not report as a second test program.
      const bool forked = code_of(db.read()) == Errc::forked && code_of(db.command("noop", {}).get()) == Errc::forked;
      ::_exit(forked ? 0 : 1);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    put(db, "k", "w");
    CHECK(get(db, "k") == "w");
  }
}
