// How long a start takes after kill -9, beside how much the database holds: the same number of entries to replay, ten
// times the keys.
//
//   restart [--keys N] [--entries N] [--directory DIR]
//
// "open" is DB::open: the log checked, the database taken back to its checkpoint, the entries replayed. "first read" is
// from the beginning of that to the first linearizable read of a random key. Warm: the file is in the page cache, as
// after a crash of the process. Cold: it is not, as after a crash of the machine (needs root, to drop it).
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <optional>
#include <string>
#include <string_view>

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include <flotilla/flotilla.hpp>

namespace {

using namespace std::chrono_literals;
using namespace flotilla;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t keys_per_command = 1000;

struct Settings {
  std::uint64_t keys = 1'000'000;
  std::uint64_t entries = 20'000;
  std::filesystem::path directory = std::filesystem::temp_directory_path();
};

std::string key_of(std::uint64_t number) {
  return fmt::format("key-{:012}", number);
}

Commands commands() {
  Commands commands;
  commands.add("fill", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    auto table = txn.table("t");
    const std::uint64_t first = std::stoull(std::string(args[0]));
    for (std::uint64_t i = first; i < first + keys_per_command; ++i) {
      if (auto put = table.put(key_of(i), std::string(100, 'v')); !put) return fail(put.error());
    }
    return Bytes();
  });
  commands.add("put", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    if (auto put = txn.table("t").put(args[0], args[1]); !put) return fail(put.error());
    return Bytes();
  });
  return commands;
}

Options options_of(const std::filesystem::path& directory) {
  Options options;
  options.data_dir = directory;
  return options;
}

Result<void> fill(const std::filesystem::path& directory, std::uint64_t keys) {
  auto db = DB::open(options_of(directory), commands());
  if (!db) return fail(db.error());
  std::deque<std::future<Result<Bytes>>> under_way;
  for (std::uint64_t first = 0; first < keys; first += keys_per_command) {
    under_way.push_back(db->command("fill", {std::to_string(first)}));
    if (under_way.size() < 64 && first + keys_per_command < keys) continue;
    if (auto done = under_way.front().get(); !done) return fail(done.error());
    under_way.pop_front();
  }
  for (auto& one : under_way) {
    if (auto done = one.get(); !done) return fail(done.error());
  }
  return db->close();
}

/// Without a checkpoint, until the process is killed.
Result<void> write_and_die(const std::filesystem::path& directory, const Settings& settings, std::uint64_t keys) {
  Options options = options_of(directory);
  options.checkpoint_log_bytes = std::size_t{1} << 40;
  options.checkpoint_growth_bytes = std::size_t{1} << 40;
  options.checkpoint_interval = std::chrono::hours(24);
  auto db = DB::open(options, commands());
  if (!db) return fail(db.error());
  std::deque<std::future<Result<Bytes>>> under_way;
  for (std::uint64_t i = 0; i < settings.entries; ++i) {
    under_way.push_back(db->command("put", {key_of(i * 2'654'435'761u % keys), std::string(100, 'w')}));
    if (under_way.size() < 256) continue;
    if (auto done = under_way.front().get(); !done) return fail(done.error());
    under_way.pop_front();
  }
  for (auto& one : under_way) {
    if (auto done = one.get(); !done) return fail(done.error());
  }
  ::kill(::getpid(), SIGKILL);
  return {};
}

Result<void> start(const std::filesystem::path& directory, std::uint64_t keys, std::string_view how) {
  const auto begin = Clock::now();
  auto db = DB::open(options_of(directory), commands());
  if (!db) return fail(db.error());
  const auto opened = Clock::now();
  auto txn = db->read(Consistency::linearizable);
  if (!txn) return fail(txn.error());
  if (!txn->table("t").get(key_of(keys / 2))) return fail(Errc::not_found, "a key is gone");
  const auto read = Clock::now();
  const auto status = db->status();
  const auto ms = [](Clock::duration time) { return std::chrono::duration<double, std::milli>(time).count(); };
  fmt::print("{:>12} {:>6} {:>14} {:>12.1f} {:>12.1f} {:>12.0f}\n", keys, how,
             status.applied_index.value - status.checkpoint_index.value, ms(opened - begin), ms(read - begin),
             static_cast<double>(status.state_bytes) / 1e6);
  std::fflush(stdout);
  ::_exit(0);  // as it came: the next start finds the same
}

/// In a process of its own: what it exits with, or nullopt if a signal ended it.
std::optional<int> in_child(const std::function<Result<void>()>& part) {
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child == 0) {
    const Result<void> done = part();
    if (!done) fmt::print(stderr, "restart: {}\n", done.error().message());
    ::_exit(done ? 0 : 1);
  }
  int status = 0;
  if (::waitpid(child, &status, 0) != child) return 1;
  return WIFEXITED(status) ? std::optional(WEXITSTATUS(status)) : std::nullopt;
}

bool drop_page_cache() {
  ::sync();
  std::ofstream drop("/proc/sys/vm/drop_caches");
  return static_cast<bool>(drop << "3" << std::flush);
}

bool bench(const std::filesystem::path& directory, const Settings& settings, std::uint64_t keys) {
  if (in_child([&] { return fill(directory, keys); }) != 0) return false;
  if (in_child([&] { return write_and_die(directory, settings, keys); }).has_value()) return false;
  for (int round = 0; round < 3; ++round) {
    if (in_child([&] { return start(directory, keys, "warm"); }) != 0) return false;
  }
  if (!drop_page_cache()) return true;
  return in_child([&] { return start(directory, keys, "cold"); }) == 0;
}

std::optional<Settings> parse(int count, char** words) {
  Settings settings;
  for (int at = 1; at + 1 < count; at += 2) {
    const std::string_view word = words[at];
    if (word == "--keys") {
      settings.keys = std::strtoull(words[at + 1], nullptr, 10);
    } else if (word == "--entries") {
      settings.entries = std::strtoull(words[at + 1], nullptr, 10);
    } else if (word == "--directory") {
      settings.directory = words[at + 1];
    } else {
      return std::nullopt;
    }
  }
  if (count % 2 == 0 || settings.keys < keys_per_command) return std::nullopt;
  return settings;
}

}  // namespace

int main(int count, char** words) {
  const auto settings = parse(count, words);
  if (!settings) {
    fmt::print(stderr,
               "usage: restart [--keys N] [--entries N] [--directory DIR]\n"
               "  --keys       of the smaller database (default 1,000,000); the other has ten times as many\n"
               "  --entries    to replay (default 20,000)\n"
               "  --directory  where the databases lie (default: the temporary one)\n");
    return 2;
  }
  std::string directory = (settings->directory / "flotilla-restart-XXXXXX").string();
  if (::mkdtemp(directory.data()) == nullptr) {
    fmt::print(stderr, "restart: {} cannot be made\n", directory);
    return 1;
  }
  fmt::print("{:>12} {:>6} {:>14} {:>12} {:>12} {:>12}\n", "keys", "cache", "replayed", "open ms", "first read ms",
             "file MB");
  bool whole = true;
  for (const std::uint64_t keys : {settings->keys, 10 * settings->keys}) {
    whole = whole && bench(std::filesystem::path(directory) / std::to_string(keys), *settings, keys);
  }
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  return whole ? 0 : 1;
}
