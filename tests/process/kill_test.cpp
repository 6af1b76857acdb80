// Real processes, really killed: catalogd from examples/catalog, whose records count how often they were written.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "catalog.hpp"
#include "client.hpp"
#include "loader.hpp"
#include "member_process.hpp"
#include "support/temp_dir.hpp"

using namespace catalog;
using namespace std::chrono_literals;
using flotilla::Errc;
using Clock = std::chrono::steady_clock;

namespace {

/// Tries again until it holds; false at the deadline.
bool eventually(const std::function<bool()>& condition, std::chrono::seconds deadline = 60s) {
  const Clock::time_point end = Clock::now() + deadline;
  while (!condition()) {
    if (Clock::now() > end) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

std::filesystem::path catalogd() {
  const char* path = std::getenv("FLOTILLA_CATALOGD");
  REQUIRE_MESSAGE(path != nullptr, "FLOTILLA_CATALOGD names the program");
  return path;
}

/// Synthetic records of one writer, each with a key of its own.
struct Records {
  Records(const std::string& writer, std::size_t count) {
    texts.reserve(count);
    for (std::size_t number = 0; number < count; ++number) {
      const std::string name = writer + "-" + std::to_string(number);
      texts.push_back("Package: " + name + "\nSection: " + writer +
                      "\nDepends: libc6, shared\nX-Filler: " + std::string(200, 'x') + "\n");
      records.push_back({name, texts.back()});
    }
  }
  std::vector<std::string> texts;
  std::vector<Record> records;
};

/// Writes all its records through one member, whatever happens to that member: reconnects as often as it must.
class Writer {
 public:
  Writer(flotilla::StreamMux& mux, flotilla::Address member, const std::string& name, std::size_t count)
      : mux_(mux),
        member_(std::move(member)),
        records_(name, count),
        loader_(records_.records, Identity::installed, 32),
        thread_([this] { run(); }) {}
  ~Writer() { join(); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  void join() {
    if (thread_.joinable()) thread_.join();
  }
  std::size_t acknowledged() const { return loader_.acknowledged(); }
  std::size_t total() const { return records_.records.size(); }
  /// Requires: joined.
  const std::map<std::string, Ledger>& ledger() const { return loader_.ledger(); }
  const std::string& failure() const { return failure_; }

 private:
  void run() {
    const Clock::time_point end = Clock::now() + 120s;
    while (loader_.acknowledged() < total()) {
      if (Clock::now() > end) {
        failure_ = "out of time";
        return;
      }
      auto client = Client::connect(mux_, member_);
      if (!client) {
        std::this_thread::sleep_for(2ms);
        continue;
      }
      const auto loaded = loader_.load(
          **client, total(), total(), [](std::size_t) {}, 60s);
      client->reset();
      loader_.drain();
      if (!loaded && loaded.error() != Errc::closed) {
        failure_ = loaded.error().message();
        return;
      }
    }
  }

  flotilla::StreamMux& mux_;
  const flotilla::Address member_;
  const Records records_;
  Loader loader_;
  std::string failure_;
  std::thread thread_;
};

std::optional<MemberStatus> ask_status(flotilla::StreamMux& mux, const MemberProcess& member) {
  if (!member.running()) return std::nullopt;
  auto client = Client::connect(mux, member.address());
  return client ? (*client)->status() : std::nullopt;
}

/// Three members, each founded or joined, all voters.
struct Cluster {
  explicit Cluster(const std::vector<std::string>& more_arguments = {}) {
    for (int number = 0; number < 3; ++number) {
      const flotilla::Address join = members.empty() ? "" : members.front().address();
      members.emplace_back(MemberOptions{catalogd(), directory.path() / std::to_string(number),
                                         free_loopback_address().value(), join, more_arguments});
      const auto started = members.back().start();
      REQUIRE_MESSAGE(started.has_value(), (started ? "" : started.error().message()));
    }
    REQUIRE(eventually([&] {
      return std::all_of(members.begin(), members.end(), [&](const MemberProcess& member) {
        const auto status = ask_status(mux, member);
        return status && status->voters == 3 && status->leader != "-";
      });
    }));
  }

  /// A running member that says it leads, or one that says it does not.
  MemberProcess* find(bool leading) {
    for (MemberProcess& member : members) {
      const auto status = ask_status(mux, member);
      if (status && (status->role == "leader") == leading) return &member;
    }
    return nullptr;
  }
  void kill_and_restart(bool leader, const std::function<void()>& meanwhile) {
    MemberProcess* victim = nullptr;
    REQUIRE(eventually([&] { return (victim = find(leader)) != nullptr; }));
    victim->kill();
    meanwhile();
    const auto started = victim->start();
    REQUIRE_MESSAGE(started.has_value(), (started ? "" : started.error().message()));
  }

  flotilla::test::TempDir directory;
  flotilla::StreamMux mux = flotilla::StreamMux::open({}).value();
  std::vector<MemberProcess> members;
};

}  // namespace

TEST_SUITE("process.kill") {
  TEST_CASE("with leader and follower killed while all members write, every acknowledged command is there once") {
    Cluster cluster;
    constexpr std::size_t count = 600;
    std::vector<std::unique_ptr<Writer>> writers;
    for (std::size_t number = 0; number < 3; ++number) {
      writers.push_back(std::make_unique<Writer>(cluster.mux, cluster.members[number].address(),
                                                 "writer" + std::to_string(number), count));
    }
    const auto acknowledged = [&] {
      std::size_t sum = 0;
      for (const auto& writer : writers) sum += writer->acknowledged();
      return sum;
    };
    // A third of what is left is written between the faults, so that each hits writes in flight.
    const auto more = [&] {
      const std::size_t goal = acknowledged() + (3 * count - acknowledged()) / 6;
      CHECK(eventually([&] { return acknowledged() >= goal; }));
    };
    more();
    cluster.kill_and_restart(false, more);
    more();
    cluster.kill_and_restart(true, more);
    more();
    cluster.kill_and_restart(true, [] {});
    for (const auto& writer : writers) {
      writer->join();
      CHECK(writer->failure() == "");
      CHECK(writer->acknowledged() == count);
    }

    std::vector<std::unique_ptr<Client>> clients;
    for (const MemberProcess& member : cluster.members) {
      clients.push_back(Client::connect(cluster.mux, member.address()).value());
    }
    REQUIRE(eventually([&] {
      std::optional<std::uint64_t> applied;
      return std::all_of(clients.begin(), clients.end(), [&](const std::unique_ptr<Client>& client) {
        const auto status = client->status();
        if (!status || status->applied != status->last) return false;
        return applied.value_or(status->applied) == *(applied = status->applied);
      });
    }));
    std::vector<std::string> hashes;
    for (const auto& client : clients) {
      const auto revisions = client->revisions().value();
      CHECK(revisions.size() == 3 * count);
      for (const auto& writer : writers) {
        for (const auto& [key, entry] : writer->ledger()) {
          const std::string& record = key;  // clang 14 does not capture a structured binding
          CAPTURE(record);
          // Once, also where the writer asked again: the restarted member's new session shuts out the old one's copies.
          REQUIRE(revisions.count(key) == 1);
          REQUIRE(revisions.at(key) == 1);
        }
      }
      hashes.push_back(client->contents().value().hash);
    }
    CHECK(hashes[0] == hashes[1]);
    CHECK(hashes[0] == hashes[2]);
  }

  TEST_CASE("a follower killed over and over while it gets a snapshot has everything in the end") {
    constexpr int kills = 12;
    Cluster cluster({"--trailing", "10"});
    MemberProcess* follower = nullptr;
    REQUIRE(eventually([&] { return (follower = cluster.find(false)) != nullptr; }));
    std::uint64_t snapshots = 0;
    std::size_t expected = 0;
    for (int kill = 0; kill < kills; ++kill) {
      CAPTURE(kill);
      follower->kill();
      // More than log and memory keep, while it is away: some segments, however well the records share blocks.
      Writer writer(cluster.mux, (follower == &cluster.members[0] ? cluster.members[1] : cluster.members[0]).address(),
                    "round" + std::to_string(kill), 900);
      writer.join();
      REQUIRE(writer.failure() == "");
      expected += writer.total();
      const auto started = follower->start();
      REQUIRE_MESSAGE(started.has_value(), (started ? "" : started.error().message()));
      // The kill meets another moment of it each time: dialling, receiving, installing, following.
      std::this_thread::sleep_for(std::chrono::milliseconds(kill * 80));
      if (const auto status = ask_status(cluster.mux, *follower)) snapshots += status->snapshots;
    }
    std::vector<Contents> contents;
    REQUIRE(eventually([&] {
      contents.clear();
      for (const MemberProcess& member : cluster.members) {
        auto client = Client::connect(cluster.mux, member.address());
        auto held = client ? (*client)->contents() : std::nullopt;
        if (held) contents.push_back(std::move(*held));
      }
      return contents.size() == 3 && contents[0] == contents[1] && contents[0] == contents[2];
    }));
    CHECK(contents[0].records == expected);
    snapshots += ask_status(cluster.mux, *follower).value().snapshots;
    CHECK(snapshots > 0);
  }

  TEST_CASE("one member killed over and over while it is written to has every acknowledged command each time") {
    constexpr int kills = 25;
    const flotilla::test::TempDir directory;
    flotilla::StreamMux mux = flotilla::StreamMux::open({}).value();
    MemberProcess member({catalogd(), directory.path(), free_loopback_address().value(), ""});
    const Records records("writer", 20'000);
    Loader loader(records.records, Identity::installed, 64);
    for (int kill = 0; kill < kills; ++kill) {
      CAPTURE(kill);
      const auto started = member.start();
      REQUIRE_MESSAGE(started.has_value(), (started ? "" : started.error().message()));
      std::unique_ptr<Client> client = Client::connect(mux, member.address()).value();
      {
        // Before the first new write: what open() found in the log is already applied.
        const auto revisions = client->revisions().value();
        for (const auto& [key, entry] : loader.ledger()) {
          const std::string& record = key;  // clang 14 does not capture a structured binding
          CAPTURE(record);
          const auto at = revisions.find(key);
          REQUIRE((at == revisions.end() ? 0 : at->second) >= entry.acknowledged);
          REQUIRE((at == revisions.end() ? 0 : at->second) <= 1);
        }
      }
      // A different number of writes each time, so that the kill meets different places in the log and the checkpoint.
      const std::size_t goal = loader.acknowledged() + 20 + static_cast<std::size_t>(kill) * 13;
      std::thread killer([&] {
        eventually([&] { return loader.acknowledged() >= goal; });
        member.kill();
      });
      const auto loaded = loader.load(*client, records.records.size(), records.records.size(), [](std::size_t) {});
      killer.join();
      REQUIRE_FALSE(loaded.has_value());
      CHECK(loaded.error() == Errc::closed);
      client.reset();
      loader.drain();
    }
    REQUIRE(member.start().has_value());
    const auto revisions = Client::connect(mux, member.address()).value()->revisions().value();
    const auto finding = compare(loader.ledger(), revisions);
    CHECK_MESSAGE(!finding.has_value(), finding.value_or(""));
    CHECK(member.stop().value() == 0);
  }
}
