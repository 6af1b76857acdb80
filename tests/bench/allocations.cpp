// What the library allocates for each entry, by member and thread: one member, and a cluster of three in this process.
//
//   allocations [--members N] [--callers N] [--seconds N] [--stacks] [--directory DIR]
//
// Callers are completions at the leader, which begin the next put (16 B key, 100 B value) where the one before ended,
// and allocate nothing themselves. What a call allocates before it returns is counted as "calls", on whichever thread
// it is made. --stacks: and where the allocations are made, for each 997th of them. Functions that were inlined are
// named only where the build has line numbers.
#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <vector>

#include <dlfcn.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <flotilla/flotilla.hpp>
#include <flotilla/standard.hpp>
#include "bench/allocation_counter.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flotilla;
using namespace flotilla::bench;

constexpr std::uint64_t keys = 100'000;
constexpr std::size_t sites_shown = 15;

struct Settings {
  std::vector<std::size_t> members = {1, 3};
  unsigned callers = 256;
  std::chrono::seconds time{3};
  bool stacks = false;
  std::filesystem::path directory = std::filesystem::temp_directory_path();
};

struct Failure {
  std::string why;
};

// --- members ---------------------------------------------------------------------------------------------------------

std::set<int> threads_of_this_process() {
  std::set<int> ids;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task"))
    ids.insert(std::atoi(entry.path().filename().c_str()));
  return ids;
}

/// Members in this process, on loopback, each with the threads that its start began.
class Members {
 public:
  Members(const std::filesystem::path& directory, std::size_t count) {
    std::set<int> before = threads_of_this_process();
    for (std::size_t i = 0; i < count; ++i) {
      Options options;
      options.data_dir = directory / std::to_string(i);
      if (count > 1) options.listen = "127.0.0.1:0";
      options.found = i == 0;
      if (i > 0) options.join = {members_[0].status().listen};
      auto db = DB::open(options, standard_commands());
      if (!db) throw Failure{db.error().message()};
      members_.push_back(std::move(*db));
      const std::set<int> after = threads_of_this_process();
      for (const int id : after) {
        if (!before.contains(id)) member_of_.emplace(id, i);
      }
      before = after;
    }
    wait_for_voters();
  }

  DB& operator[](std::size_t i) { return members_[i]; }
  std::size_t size() const { return members_.size(); }
  std::size_t leader() const { return leader_; }
  std::string_view role(std::size_t i) const { return i == leader_ ? "leader" : "follower"; }
  std::optional<std::size_t> member_of(int thread_id) const {
    const auto at = member_of_.find(thread_id);
    return at == member_of_.end() ? std::nullopt : std::optional(at->second);
  }

 private:
  void wait_for_voters() {
    for (int i = 0; i < 3000; ++i) {
      const auto leader = std::find_if(members_.begin(), members_.end(), [](const DB& db) { return db.is_leader(); });
      if (leader != members_.end()) {
        const auto lines = leader->status().members;
        const auto voters = std::count_if(lines.begin(), lines.end(), [](const Member& line) { return line.voter; });
        leader_ = static_cast<std::size_t>(leader - members_.begin());
        if (static_cast<std::size_t>(voters) == size()) return;
      }
      std::this_thread::sleep_for(10ms);
    }
    throw Failure{"the members did not become voters"};
  }

  std::vector<DB> members_;
  std::map<int, std::size_t> member_of_;  ///< by thread
  std::size_t leader_ = 0;
};

// --- callers ---------------------------------------------------------------------------------------------------------

struct Shared {
  explicit Shared(DB& leader) : db(leader) {}
  DB& db;
  std::atomic<std::uint64_t> done = 0;
  std::atomic<bool> stopping = false;
  std::atomic<bool> failed = false;
  std::atomic<unsigned> running = 0;
};

/// One closed loop. Used by one thread at a time.
class Caller {
 public:
  Caller(Shared& shared, unsigned number, unsigned step) : shared_(shared), next_(number), step_(step) {
    key_.fill('k');
    value_.fill('v');
  }

  void call() {
    // Each key once, and then any.
    const std::uint64_t key = next_ < keys ? next_ : next_ * 0x9e3779b97f4a7c15u % keys;
    next_ += step_;
    *std::to_chars(key_.data(), key_.data() + key_.size(), keys + key).ptr = 'k';
    const CountAsCall counting;
    shared_.db.command("put", {"bench", {key_.data(), key_.size()}, {value_.data(), value_.size()}},
                       [this](const Result<Bytes>& result) { ended(result.has_value()); });
  }

 private:
  void ended(bool ok) {
    ++shared_.done;
    if (!ok) shared_.failed = true;
    if (ok && !shared_.stopping) return call();
    --shared_.running;
  }

  Shared& shared_;
  std::uint64_t next_;
  const unsigned step_;
  std::array<char, 16> key_;
  std::array<char, 100> value_;
};

// --- where the allocations are made ----------------------------------------------------------------------------------

/// Names of functions of this program, by return address; innermost first where several were inlined.
class Symbols {
 public:
  explicit Symbols(const std::vector<Sample>& samples) {
    Dl_info self{};
    ::dladdr(reinterpret_cast<void*>(&threads_of_this_process), &self);
    std::map<std::uintptr_t, std::uintptr_t> wanted;  // offset in the file: return address
    for (const Sample& sample : samples) {
      for (std::size_t i = 0; i < sample.depth; ++i) {
        Dl_info info{};
        if (::dladdr(sample.frames[i], &info) == 0 || info.dli_fbase != self.dli_fbase) continue;
        const auto address = reinterpret_cast<std::uintptr_t>(sample.frames[i]);
        wanted.emplace(address - 1 - reinterpret_cast<std::uintptr_t>(self.dli_fbase), address);
      }
    }
    ask(wanted);
  }
  const std::vector<std::string>& at(const void* address) const {
    static const std::vector<std::string> none;
    const auto found = names_.find(reinterpret_cast<std::uintptr_t>(address));
    return found == names_.end() ? none : found->second;
  }

 private:
  void ask(const std::map<std::uintptr_t, std::uintptr_t>& wanted) {
    std::string questions = std::filesystem::temp_directory_path() / "flotilla-addresses-XXXXXX";
    const int fd = ::mkstemp(questions.data());
    if (fd < 0) throw Failure{"no temporary file"};
    ::close(fd);
    std::ofstream file(questions);
    for (const auto& [offset, address] : wanted) file << fmt::format("{:#x}\n", offset);
    file.close();
    const std::string program = std::filesystem::read_symlink("/proc/self/exe");
    FILE* answers = ::popen(fmt::format("addr2line -afCis -e '{}' < {}", program, questions).c_str(), "r");
    if (answers == nullptr) throw Failure{"addr2line cannot be run"};
    char* line = nullptr;
    std::size_t space = 0;
    std::vector<std::string>* names = nullptr;
    std::string function;
    while (::getline(&line, &space, answers) > 0) {
      std::string_view text(line);
      text.remove_suffix(text.ends_with('\n'));
      if (text.starts_with("0x")) {
        names = &names_[wanted.at(std::strtoull(line, nullptr, 16))];
        function.clear();
      } else if (function.empty()) {
        function = shortened(text);
      } else {
        if (!text.starts_with("??")) function += fmt::format(" {}", text.substr(0, text.find(' ')));
        names->push_back(std::exchange(function, {}));
      }
    }
    std::free(line);
    ::pclose(answers);
    std::filesystem::remove(questions);
  }

  /// Without arguments of templates and functions.
  static std::string shortened(std::string_view name) {
    std::string out;
    int depth = 0;
    for (const char c : name) {
      if (c == '<' || c == '(' || c == '[' || c == '{') ++depth;
      if (depth == 0) out += c;
      if (c == '>' || c == ')' || c == ']' || c == '}') --depth;
    }
    if (out.ends_with(" const")) out.resize(out.size() - 6);
    const std::size_t last_space = out.rfind(' ');  // before it: the type of the result
    if (last_space != std::string::npos && !out.starts_with("operator")) out.erase(0, last_space + 1);
    for (std::size_t at = 0; (at = out.find("flotilla::", at)) != std::string::npos;) out.erase(at, 10);
    return out;
  }

  std::map<std::uintptr_t, std::vector<std::string>> names_;
};

/// The innermost function of the library, with what of other libraries it called, and its callers.
std::string site(const Sample& sample, const Symbols& symbols) {
  constexpr std::size_t callers_shown = 3;
  const auto foreign = [](std::string_view name) {
    return name.starts_with("std::") || name.starts_with("__gnu_cxx::") || name.starts_with("boost::") ||
           name.starts_with("fmt::") || name.starts_with("tl::") || name.starts_with("_") || name.starts_with("?");
  };
  std::string outermost_foreign;
  std::vector<std::string_view> own;
  for (std::size_t i = 0; i < sample.depth && own.size() < callers_shown; ++i) {
    for (const std::string& name : symbols.at(sample.frames[i])) {
      if (name.starts_with("operator new") || name.find("allocation_counter.cpp") != std::string::npos) {
        own.clear();
        outermost_foreign.clear();
      } else if (!foreign(name)) {
        own.push_back(name);
      } else if (own.empty()) {
        outermost_foreign = name;
      }
    }
  }
  std::string out;
  for (const std::string_view name : own) out += fmt::format("{}{}", out.empty() ? "" : " < ", name);
  if (!outermost_foreign.empty()) out = fmt::format("{} < {}", outermost_foreign, out);
  return out.empty() ? "?" : out;
}

struct Where {
  std::string role;
  std::string thread;
  std::string site;
  auto operator<=>(const Where&) const = default;
};

void print_sites(const Members& members, const std::vector<ThreadAllocations>& threads, std::uint64_t entries) {
  const std::vector<Sample> all = samples();
  const Symbols symbols(all);
  std::map<int, std::string> names;
  for (const ThreadAllocations& thread : threads) names[thread.thread_id] = thread.name;
  std::map<Where, Allocated> sites;
  for (const Sample& sample : all) {
    const auto member = members.member_of(sample.thread_id);
    Allocated& sum = sites[{std::string(member ? members.role(*member) : "-"),
                            sample.in_call ? "calls" : names[sample.thread_id], site(sample, symbols)}];
    ++sum.count;
    sum.bytes += sample.bytes;
  }
  std::vector<std::pair<Where, Allocated>> sorted(sites.begin(), sites.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](auto& a, auto& b) { return a.second.count > b.second.count; });
  if (sorted.size() > sites_shown) sorted.resize(sites_shown);
  fmt::print("\n{:>17}  {:>11}  {:<8}  {:<15}  {}\n", "allocations/entry", "bytes each", "member", "thread",
             "where (all followers together)");
  for (const auto& [where, sum] : sorted) {
    fmt::print("{:>17.3f}  {:>11}  {:<8}  {:<15}  {}\n",
               static_cast<double>(sum.count * sample_interval) / static_cast<double>(entries), sum.bytes / sum.count,
               where.role, where.thread, where.site);
  }
}

// --- measuring -------------------------------------------------------------------------------------------------------

Allocated operator-(const Allocated& a, const Allocated& b) {
  return {a.count - b.count, a.bytes - b.bytes};
}

void print_row(std::string_view member, std::string_view thread, const Allocated& sum, std::uint64_t entries) {
  fmt::print("{:<12} {:<16} {:>18.3f} {:>12.1f}\n", member, thread,
             static_cast<double>(sum.count) / static_cast<double>(entries),
             static_cast<double>(sum.bytes) / static_cast<double>(entries));
}

/// Of each member by its own count of applied entries.
void print_table(const Members& members, const std::vector<ThreadAllocations>& before,
                 const std::vector<ThreadAllocations>& after, const std::vector<std::uint64_t>& entries) {
  std::map<std::pair<std::size_t, std::string>, Allocated> rows;
  Allocated calls;
  for (const ThreadAllocations& thread : after) {
    const auto member = members.member_of(thread.thread_id);
    if (!member) continue;
    const auto at = std::find_if(before.begin(), before.end(),
                                 [&](const auto& earlier) { return earlier.thread_id == thread.thread_id; });
    const ThreadAllocations earlier = at == before.end() ? ThreadAllocations() : *at;
    const Allocated own = thread.own - earlier.own;
    Allocated& row = rows[{*member, thread.name}];
    row.count += own.count;
    row.bytes += own.bytes;
    const Allocated in_calls = thread.in_calls - earlier.in_calls;
    calls.count += in_calls.count;
    calls.bytes += in_calls.bytes;
  }
  fmt::print("{:<12} {:<16} {:>18} {:>12}\n", "member", "thread", "allocations/entry", "bytes/entry");
  for (const auto& [key, row] : rows) {
    const auto& [member, thread] = key;
    print_row(fmt::format("{} {}", member, members.role(member)), thread, row, entries[member]);
  }
  print_row(fmt::format("{} leader", members.leader()), "calls", calls, entries[members.leader()]);
}

std::vector<std::uint64_t> applied_entries(Members& members) {
  std::vector<std::uint64_t> counts;
  for (std::size_t i = 0; i < members.size(); ++i) counts.push_back(members[i].metrics().applied_entries);
  return counts;
}

void measure(const std::filesystem::path& directory, std::size_t count, const Settings& settings) {
  Members members(directory, count);
  Shared shared(members[members.leader()]);
  shared.running = settings.callers;
  std::vector<std::unique_ptr<Caller>> callers;
  for (unsigned i = 0; i < settings.callers; ++i)
    callers.push_back(std::make_unique<Caller>(shared, i, settings.callers));
  for (const auto& caller : callers) caller->call();
  while (shared.done < 2 * keys && !shared.failed) std::this_thread::sleep_for(10ms);
  keep_stacks(settings.stacks);
  const std::vector<ThreadAllocations> before = allocations();
  const std::vector<std::uint64_t> entries_before = applied_entries(members);
  std::this_thread::sleep_for(settings.time);
  std::vector<std::uint64_t> entries = applied_entries(members);
  const std::vector<ThreadAllocations> after = allocations();
  keep_stacks(false);
  shared.stopping = true;
  while (shared.running > 0) std::this_thread::sleep_for(1ms);
  if (shared.failed) throw Failure{"a command failed"};

  for (std::size_t i = 0; i < entries.size(); ++i) entries[i] -= entries_before[i];
  fmt::print("{} member{}, {} callers, 16 B keys, 100 B values: {:.0f} entries/s\n", count, count > 1 ? "s" : "",
             settings.callers,
             static_cast<double>(entries[members.leader()]) / std::chrono::duration<double>(settings.time).count());
  print_table(members, before, after, entries);
  if (settings.stacks) print_sites(members, after, entries[members.leader()]);
  fmt::print("\n");
  std::fflush(stdout);
}

std::optional<Settings> parse(int count, char** words) {
  Settings settings;
  for (int at = 1; at < count; ++at) {
    const std::string_view word = words[at];
    if (word == "--stacks") {
      settings.stacks = true;
      continue;
    }
    if (++at == count) return std::nullopt;
    if (word == "--members") {
      settings.members = {std::strtoull(words[at], nullptr, 10)};
    } else if (word == "--callers") {
      settings.callers = static_cast<unsigned>(std::strtoul(words[at], nullptr, 10));
    } else if (word == "--seconds") {
      settings.time = std::chrono::seconds(std::strtoll(words[at], nullptr, 10));
    } else if (word == "--directory") {
      settings.directory = words[at];
    } else {
      return std::nullopt;
    }
  }
  if (settings.members[0] == 0 || settings.callers == 0 || settings.time <= 0s) return std::nullopt;
  return settings;
}

}  // namespace

int main(int count, char** words) {
  const auto settings = parse(count, words);
  if (!settings) {
    fmt::print(stderr, "usage: allocations [--members N] [--callers N] [--seconds N] [--stacks] [--directory DIR]\n");
    return 2;
  }
  std::string directory = (settings->directory / "flotilla-allocations-XXXXXX").string();
  if (::mkdtemp(directory.data()) == nullptr) {
    fmt::print(stderr, "allocations: {} cannot be made\n", directory);
    return 1;
  }
  int status = 0;
  try {
    for (const std::size_t members : settings->members)
      measure(std::filesystem::path(directory) / std::to_string(members), members, *settings);
  } catch (const Failure& failure) {
    fmt::print(stderr, "allocations: {}\n", failure.why);
    status = 1;
  }
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  return status;
}
