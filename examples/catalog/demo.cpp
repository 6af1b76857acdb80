// Three members of the package catalogue on this machine: load a file through a follower, kill -9 the leader in the
// middle, start it again, compare all three.
//
//   demo [FILE]       FILE: a dpkg status file or a Packages index; default: this machine's own
//
// Last line: "demo: ok", with exit status 0, only if no acknowledged record is missing on any member, none was written
// twice, and all contents are equal; else "demo: FAILED: why" and 1.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <stdlib.h>
#include <unistd.h>

#include <fmt/format.h>

#include "catalog.hpp"
#include "client.hpp"
#include "loader.hpp"
#include "member_process.hpp"

namespace {

using catalog::Client;
using catalog::MemberStatus;
using flotilla::Errc;
using flotilla::fail;
using flotilla::Result;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr std::size_t member_count = 3;
constexpr std::size_t window = 256;
const std::string sought = "libc6";

double seconds(Clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

template <class... A>
void say(fmt::format_string<A...> format, A&&... args) {
  fmt::print("{}\n", fmt::format(format, std::forward<A>(args)...));
  std::fflush(stdout);
}

/// Asks again every few milliseconds until `condition` holds.
Result<void> wait_until(const std::string& what, std::chrono::seconds deadline,
                        const std::function<bool()>& condition) {
  const Clock::time_point end = Clock::now() + deadline;
  while (!condition()) {
    if (Clock::now() > end) return fail(Errc::timeout, fmt::format("after {} s: {}", deadline.count(), what));
    std::this_thread::sleep_for(10ms);
  }
  return {};
}

struct Member {
  catalog::MemberProcess process;
  std::unique_ptr<Client> client;
};

class Demo {
 public:
  Demo(catalog::Input input, std::filesystem::path directory)
      : input_(std::move(input)),
        directory_(std::move(directory)),
        loader_(input_.records, input_.identity, window),
        mux_(flotilla::StreamMux::open({}).value()) {}
  // The clients end first, so that the loader, which outlives them, is told of every request.
  ~Demo() { members_.clear(); }
  Demo(const Demo&) = delete;
  Demo& operator=(const Demo&) = delete;

  Result<void> run() {
    for (const auto step : {&Demo::form, &Demo::load_and_kill, &Demo::level, &Demo::compare}) {
      if (auto ok = (this->*step)(); !ok) return ok;
    }
    return {};
  }

  /// The members' own words, for a failed run.
  void print_logs() const {
    for (const Member& member : members_) {
      const std::string words = member.process.last_words();
      if (!words.empty()) say("--- {}\n{}", member.process.address(), words);
    }
  }

 private:
  Result<void> form();
  Result<void> start(Member& member);
  Result<void> load_and_kill();
  Result<void> load_to(std::size_t goal, std::size_t limit);
  Result<void> choose_victim();
  void kill_leader();
  Result<void> level();
  Result<void> compare();
  std::optional<std::size_t> leader();
  std::size_t brute_force_dependents() const;
  void progress(std::size_t acknowledged);

  const catalog::Input input_;
  const std::filesystem::path directory_;
  catalog::Loader loader_;
  flotilla::StreamMux mux_;
  std::vector<Member> members_;
  std::size_t through_ = 0;
  std::size_t killed_ = 0;
  Clock::time_point load_begin_;
  Clock::time_point last_progress_;
};

Result<void> Demo::start(Member& member) {
  if (auto ok = member.process.start(); !ok) return ok;
  Result<std::unique_ptr<Client>> client = Client::connect(mux_, member.process.address());
  if (!client) return fail(client.error());
  member.client = std::move(*client);
  return {};
}

Result<void> Demo::form() {
  const std::filesystem::path program = std::filesystem::canonical("/proc/self/exe").parent_path() / "catalogd";
  for (std::size_t number = 0; number < member_count; ++number) {
    const Result<flotilla::Address> address = catalog::free_loopback_address();
    if (!address) return fail(address.error());
    const flotilla::Address first = members_.empty() ? "" : members_.front().process.address();
    members_.push_back(
        {catalog::MemberProcess({program, directory_ / fmt::format("member-{}", number + 1), *address, first}),
         nullptr});
    if (auto ok = start(members_.back()); !ok) return ok;
    say("member {}: process {}, {}, {}", number + 1, members_.back().process.pid(), *address,
        first.empty() ? "founds the cluster" : "joins");
  }
  const Clock::time_point begin = Clock::now();
  const auto formed = wait_until("not all members are voters", 20s, [&] {
    return std::all_of(members_.begin(), members_.end(), [](Member& member) {
      const std::optional<MemberStatus> status = member.client->status();
      return status && status->voters == member_count && status->leader != "-";
    });
  });
  if (formed) say("{} voters after {:.1f} s", member_count, seconds(Clock::now() - begin));
  return formed;
}

std::optional<std::size_t> Demo::leader() {
  for (std::size_t number = 0; number < members_.size(); ++number) {
    if (!members_[number].process.running()) continue;
    const std::optional<MemberStatus> status = members_[number].client->status();
    if (status && status->role == "leader") return number;
  }
  return std::nullopt;
}

void Demo::progress(std::size_t acknowledged) {
  // A terminal's line is written over; a file gets one a second.
  const Clock::time_point now = Clock::now();
  if (::isatty(STDOUT_FILENO) != 1 && now - last_progress_ < 1s && acknowledged < input_.records.size()) return;
  last_progress_ = now;
  const double elapsed = std::max(seconds(Clock::now() - load_begin_), 1e-3);
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  fmt::print("{}  {:>6} of {} records, {:.0f}/s{}", terminal ? "\r" : "", acknowledged, input_.records.size(),
             static_cast<double>(acknowledged) / elapsed, terminal ? "  " : "\n");
  std::fflush(stdout);
}

Result<void> Demo::load_to(std::size_t goal, std::size_t limit) {
  const auto loaded = loader_.load(*members_[through_].client, goal, limit, [this](std::size_t n) { progress(n); });
  if (::isatty(STDOUT_FILENO) == 1) say("");
  return loaded;
}

/// Finds the leader; if it is the member we load through, goes on through another.
Result<void> Demo::choose_victim() {
  std::optional<std::size_t> found;
  const auto known = wait_until("no member leads", 10s, [&] { return (found = leader()).has_value(); });
  if (!known) return known;
  killed_ = *found;
  if (killed_ == through_) {
    loader_.drain();
    through_ = (through_ + 1) % member_count;
  }
  return {};
}

/// Runs beside the load, so that records are in flight: waits until it has sent something, then kills at once.
void Demo::kill_leader() {
  const std::size_t before = loader_.acknowledged();
  const Clock::time_point end = Clock::now() + 10s;
  while (loader_.acknowledged() == before && loader_.in_flight() == 0 && Clock::now() < end) {
    std::this_thread::sleep_for(100us);
  }
  const std::size_t in_flight = loader_.in_flight();
  const pid_t pid = members_[killed_].process.pid();
  loader_.begin_pause_watch();
  members_[killed_].process.kill();
  say("{}kill -9 of member {}, the leader (process {}), with {} records in flight",
      ::isatty(STDOUT_FILENO) == 1 ? "\n" : "", killed_ + 1, pid, in_flight);
}

Result<void> Demo::load_and_kill() {
  const std::optional<std::size_t> first_leader = leader();
  if (!first_leader) return fail(Errc::no_leader, "the cluster has no leader");
  through_ = (*first_leader + 1) % member_count;
  const std::size_t total = input_.records.size();
  say("loading {} records through member {}, a follower; member {} leads", total, through_ + 1, *first_leader + 1);
  load_begin_ = Clock::now();
  if (auto ok = load_to(total * 2 / 5, total * 2 / 5); !ok) return ok;
  if (auto ok = choose_victim(); !ok) return ok;
  std::thread killer([this] { kill_leader(); });
  const Result<void> loaded = load_to(total * 7 / 10, total);
  killer.join();
  if (!loaded) return loaded;
  const Clock::duration pause = loader_.longest_pause();
  members_[killed_].client.reset();
  if (auto ok = start(members_[killed_]); !ok) return ok;
  say("member {} is started again: process {}", killed_ + 1, members_[killed_].process.pid());
  if (auto ok = load_to(total, total); !ok) return ok;
  const double elapsed = seconds(Clock::now() - load_begin_);
  loader_.drain();
  say("");
  say("{:<36} {}", "records acknowledged", loader_.acknowledged());
  say("{:<36} {:.0f} (failover and restart included)", "commands/s", static_cast<double>(total) / elapsed);
  say("{:<36} {:.0f} ms", "longest pause at the failover", seconds(pause) * 1000);
  say("{:<36} {}", "asked again after an unknown outcome", loader_.asked_again());
  return {};
}

Result<void> Demo::level() {
  const Clock::time_point begin = Clock::now();
  const auto equal = wait_until("the members are not level", 20s, [&] {
    std::optional<std::uint64_t> applied;
    for (Member& member : members_) {
      const std::optional<MemberStatus> status = member.client->status();
      if (!status || status->applied != status->last) return false;
      if (applied.value_or(status->applied) != status->applied) return false;
      applied = status->applied;
    }
    return true;
  });
  if (equal) say("{:<36} {:.1f} s", "all level after", seconds(Clock::now() - begin));
  return equal;
}

std::size_t Demo::brute_force_dependents() const {
  std::map<std::string_view, bool> last;  // of records with one key, the last one counts
  for (const catalog::Record& record : input_.records) {
    const catalog::Package package = catalog::parse_package(record.text).value();
    bool names = false;
    for (const auto* field : {&package.pre_depends, &package.depends}) {
      for (const auto& alternatives : *field) {
        for (const auto& relation : alternatives) names = names || relation.name == sought;
      }
    }
    last[record.key] = names;
  }
  return static_cast<std::size_t>(std::count_if(last.begin(), last.end(), [](const auto& one) { return one.second; }));
}

Result<void> Demo::compare() {
  const std::size_t expected = brute_force_dependents();
  std::vector<catalog::Contents> all;
  std::optional<std::string> finding;
  const auto find = [&](std::string what) {
    if (!finding) finding = std::move(what);
  };
  say("\n{:<7} {:<17} {:<9} {:>9} {:>8} {:>18}  {}", "member", "address", "role", "applied", "records",
      "depend on " + sought, "content hash");
  for (std::size_t number = 0; number < members_.size(); ++number) {
    Client& client = *members_[number].client;
    const auto status = client.status();
    const auto contents = client.contents();
    const auto dependents = client.dependents(sought);
    const auto revisions = client.revisions();
    if (!status || !contents || !dependents || !revisions) {
      return fail(Errc::io_error, fmt::format("member {} does not answer", number + 1));
    }
    say("{:<7} {:<17} {:<9} {:>9} {:>8} {:>18}  {}", number + 1, members_[number].process.address(), status->role,
        contents->index, contents->records, dependents->size(), contents->hash);
    if (const auto wrong = catalog::compare(loader_.ledger(), *revisions)) {
      find(fmt::format("member {}: {}", number + 1, *wrong));
    }
    if (contents->records != loader_.ledger().size()) {
      find(fmt::format("member {} has {} records, {} were written", number + 1, contents->records,
                       loader_.ledger().size()));
    }
    if (dependents->size() != expected) {
      find(fmt::format("member {}: {} packages depend on {}, by the file it is {}", number + 1, dependents->size(),
                       sought, expected));
    }
    all.push_back(*contents);
  }
  for (std::size_t number = 1; number < all.size(); ++number) {
    if (all[number].hash != all[0].hash) find(fmt::format("the contents of members 1 and {} differ", number + 1));
  }
  if (finding) return fail(Errc::damaged, *finding);
  return {};
}

Result<void> run(const std::string& path) {
  Result<catalog::Input> input = catalog::read_input(path);
  if (!input) return fail(input.error());
  say("{}: {} records, {} malformed", path, input->records.size(), input->malformed.size());
  for (const std::string& line : input->malformed) say("  left out: {}", line);

  std::string name = (std::filesystem::temp_directory_path() / "flotilla-demo-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) return fail(Errc::io_error, name + " cannot be made");
  Result<void> done;
  {
    Demo demo(std::move(*input), name);
    done = demo.run();
    if (!done) {
      demo.print_logs();
      say("the members' directories are kept: {}", name);
    }
  }
  if (done) std::filesystem::remove_all(name);
  return done;
}

}  // namespace

int main(int count, char** words) {
  if (count > 2 || (count == 2 && words[1][0] == '-')) {
    fmt::print(stderr, "usage: demo [FILE]\n");
    return 2;
  }
  const Result<void> done = run(count == 2 ? words[1] : "/var/lib/dpkg/status");
  if (!done) {
    std::string why = done.error().message();
    std::replace(why.begin(), why.end(), '\n', ' ');
    say("demo: FAILED: {}", why);
    return 1;
  }
  say("demo: ok");
  return 0;
}
