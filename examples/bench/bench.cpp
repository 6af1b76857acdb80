// What a durable command costs: one member and three, one caller and 64, all in this process or in three.
//
//   bench [--json] [--seconds N] [--directory DIR] [--value BYTES]
//
// Every figure is of commands that were acknowledged: durable on a majority and applied here. Three members are three
// processes on this machine's loopback, which share its processors and its disk. CPU seconds are those of all members.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <fmt/format.h>

#include <flotilla/flotilla.hpp>
#include <flotilla/standard.hpp>
#include "measure.hpp"
#include "member_process.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flotilla;
using namespace flotilla::bench;

struct Settings {
  bool json = false;
  std::chrono::milliseconds run{3000};
  std::filesystem::path directory = std::filesystem::temp_directory_path();
  std::size_t value_bytes = 100;
};

struct Figures {
  std::string name;
  unsigned members = 0;
  unsigned callers = 0;
  std::uint64_t commands = 0;
  double seconds = 0;
  double cpu_seconds = 0;  // of all members; negative: not measured
  std::chrono::nanoseconds p50{}, p99{}, longest{};

  double rate() const { return seconds > 0 ? static_cast<double>(commands) / seconds : 0; }
  double cpu_per_thousand() const { return commands > 0 ? cpu_seconds * 1000 / static_cast<double>(commands) : 0; }
};

double cpu_seconds_of(pid_t process) {
  clockid_t clock = 0;
  timespec time{};
  if (::clock_getcpuclockid(process, &clock) != 0 || ::clock_gettime(clock, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

Result<Figures> measure(DB& db, std::string name, const std::vector<pid_t>& members, unsigned callers,
                        const Settings& settings) {
  const std::string value(settings.value_bytes, 'v');
  const auto cpu = [&] {
    double sum = 0;
    for (const pid_t member : members) sum += cpu_seconds_of(member);
    return sum;
  };
  Figures figures;
  figures.cpu_seconds = -cpu();
  const Clock::time_point begin = Clock::now();
  const Result<Latencies> all = call(db, callers, value, settings.run);
  figures.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  figures.cpu_seconds += cpu();
  if (!all) return fail(Errc::command_failed, fmt::format("{}: {}", name, all.error().message()));
  figures.name = std::move(name);
  figures.members = static_cast<unsigned>(members.size());
  figures.callers = callers;
  figures.commands = all->size();
  figures.p50 = percentile(*all, 0.5);
  figures.p99 = percentile(*all, 0.99);
  figures.longest = percentile(*all, 1);
  return figures;
}

void print(const Figures& f, bool json) {
  if (json) {
    fmt::print(
        "{{\"name\": \"{}\", \"members\": {}, \"callers\": {}, \"commands\": {}, \"seconds\": {:.3f}, "
        "\"commands_per_second\": {:.0f}, \"p50_us\": {:.1f}, \"p99_us\": {:.1f}, \"max_us\": {:.1f}, "
        "\"cpu_seconds_per_1000\": {:.4f}}}\n",
        f.name, f.members, f.callers, f.commands, f.seconds, f.rate(), microseconds(f.p50), microseconds(f.p99),
        microseconds(f.longest), f.cpu_per_thousand());
  } else {
    fmt::print("{:<34} {:>8} {:>11.0f} {:>10.0f} {:>10.0f} {:>10.0f} {:>12.3f}\n", f.name, f.callers, f.rate(),
               microseconds(f.p50), microseconds(f.p99), microseconds(f.longest), f.cpu_per_thousand());
  }
  std::fflush(stdout);
}

Options member_options(const std::filesystem::path& data_dir) {
  Options options;
  options.data_dir = data_dir;
  return options;
}

/// A member in a process of its own, which does nothing but take part.
class Follower {
 public:
  Follower(const std::filesystem::path& data_dir, const Address& leader) {
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    Options options = member_options(data_dir);
    options.listen = "127.0.0.1:0";
    options.join = {leader};
    const Result<DB> db = DB::open(options, standard_commands());
    if (!db) {
      fmt::print(stderr, "bench: {}\n", db.error().message());
      ::_exit(1);
    }
    while (true) ::pause();
  }
  ~Follower() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

Result<void> wait_for_voters(const DB& db, std::size_t count) {
  const Clock::time_point end = Clock::now() + 20s;
  while (Clock::now() < end) {
    const Status status = db.status();
    const auto voters = std::count_if(status.members.begin(), status.members.end(), [](auto& m) { return m.voter; });
    if (static_cast<std::size_t>(voters) == count && status.role == Role::leader) return {};
    std::this_thread::sleep_for(5ms);
  }
  return fail(Errc::timeout, fmt::format("the members did not become {} voters", count));
}

Result<void> measure_all(DB& db, const std::string& what, const std::vector<pid_t>& members, const Settings& settings) {
  for (const unsigned callers : {1u, 64u}) {
    const Result<Figures> figures = measure(db, what, members, callers, settings);
    if (!figures) return fail(figures.error());
    print(*figures, settings.json);
  }
  return {};
}

/// In a child, so that it can be forked before this process has any thread.
Result<void> bench_one(const std::filesystem::path& directory, const Settings& settings) {
  Result<DB> db = DB::open(member_options(directory / "one"), standard_commands());
  if (!db) return fail(db.error());
  return measure_all(*db, "put, one member", {::getpid()}, settings);
}

Result<void> bench_three(const std::filesystem::path& directory, const Settings& settings) {
  // The followers are forked while this process has one thread, so they must know where the leader will listen.
  const Result<Address> address = catalog::free_loopback_address();
  if (!address) return fail(address.error());
  const Follower second(directory / "second", *address);
  const Follower third(directory / "third", *address);
  Options options = member_options(directory / "first");
  options.listen = *address;
  options.found = true;
  Result<DB> db = DB::open(options, standard_commands());
  if (!db) return fail(db.error());
  if (auto ok = wait_for_voters(*db, 3); !ok) return ok;
  return measure_all(*db, "put, three members, on the leader", {::getpid(), second.pid(), third.pid()}, settings);
}

/// Runs a part in a process of its own; true if it succeeded.
bool in_child(Result<void> (*part)(const std::filesystem::path&, const Settings&),
              const std::filesystem::path& directory, const Settings& settings) {
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child == 0) {
    const Result<void> done = part(directory, settings);
    if (!done) fmt::print(stderr, "bench: {}\n", done.error().message());
    std::fflush(stdout);
    ::_exit(done ? 0 : 1);
  }
  int status = 0;
  return child > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

std::optional<Settings> parse(int count, char** words) {
  Settings settings;
  for (int at = 1; at < count; ++at) {
    const std::string_view word = words[at];
    if (word == "--json") {
      settings.json = true;
      continue;
    }
    if (at + 1 == count) return std::nullopt;
    const std::string value = words[++at];
    if (word == "--seconds") {
      settings.run = std::chrono::milliseconds(static_cast<std::int64_t>(std::strtod(value.c_str(), nullptr) * 1000));
    } else if (word == "--directory") {
      settings.directory = value;
    } else if (word == "--value") {
      settings.value_bytes = std::strtoull(value.c_str(), nullptr, 10);
    } else {
      return std::nullopt;
    }
  }
  if (settings.run <= 0ms) return std::nullopt;
  return settings;
}

}  // namespace

int main(int count, char** words) {
  const std::optional<Settings> settings = parse(count, words);
  if (!settings) {
    fmt::print(stderr,
               "usage: bench [--json] [--seconds N] [--directory DIR] [--value BYTES]\n"
               "  --json       one object a line instead of the table\n"
               "  --seconds    how long each row runs (default 3)\n"
               "  --directory  where the members' data lie: the disk that is measured (default: the temporary one)\n"
               "  --value      bytes of each value (default 100)\n");
    return 2;
  }
  std::string directory = (settings->directory / "flotilla-bench-XXXXXX").string();
  if (::mkdtemp(directory.data()) == nullptr) {
    fmt::print(stderr, "bench: {} cannot be made\n", directory);
    return 1;
  }
  if (!settings->json) {
    fmt::print("{} B values, {:.1f} s a row, in {}\n", settings->value_bytes,
               std::chrono::duration<double>(settings->run).count(), settings->directory.string());
    fmt::print("{:<34} {:>8} {:>11} {:>10} {:>10} {:>10} {:>12}\n", "", "callers", "commands/s", "p50 us", "p99 us",
               "max us", "CPU s/1,000");
  }
  const bool one = in_child(bench_one, directory, *settings);
  const bool three = in_child(bench_three, directory, *settings);
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  return one && three ? 0 : 1;
}
