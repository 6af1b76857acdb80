#include "node/checkpoints.hpp"

#include <doctest/doctest.h>

#include "db_fixture.hpp"
#include "support/sim_loop.hpp"

using namespace flotilla;
using flotilla::node::Checkpoints;

namespace {

using namespace std::chrono_literals;

constexpr Checkpoints::Limits never{1u << 30, 1u << 30, std::chrono::hours(24)};

/// A store and its checkpoints, with a tick each 100 ms.
class Rig {
 public:
  explicit Rig(const Checkpoints::Limits& limits) {
    state::StoreOptions options;
    options.directory = dir_ / "state";
    options.map_size = 64u << 20;
    options.sync = false;
    store_ = state::Store::open(options, test::test_commands()).value();
    checkpoints_ = std::make_unique<Checkpoints>(
        loop_, loop_, loop_, *store_, limits, LogSink(),
        Checkpoints::Events{.sync_log = {}, .failed = [this](const Error& error) { faults_.push_back(error); }});
  }

  void apply(std::size_t bytes, std::uint64_t log_bytes) {
    const std::uint64_t index = store_->applied_index().value + 1;
    const std::string key = std::to_string(index);
    const std::string value(bytes, 'x');
    const std::string_view args[] = {key, value};
    raft::Entry entry{.term = Term{1},
                      .index = Index{index},
                      .type = raft::EntryType::command,
                      .payload = state::encode_command({}, 0, "put", args)};
    REQUIRE(store_->apply({&entry, 1}));
    checkpoints_->applied(log_bytes);
  }
  /// The index of the checkpoint in force after that time.
  std::uint64_t after(Duration time) {
    for (Duration passed{}; passed < time; passed += 100ms) {
      checkpoints_->tick();
      scheduler_.run_for(100ms);
    }
    CHECK(checkpoints_->index() == store_->last_checkpoint().index);
    return checkpoints_->index().value;
  }
  const std::vector<Error>& faults() const { return faults_; }
  std::filesystem::path path() const { return dir_ / "state"; }

 private:
  test::TempDir dir_;
  test::SimScheduler scheduler_;
  test::SimLoop loop_{scheduler_};
  std::unique_ptr<state::Store> store_;
  std::unique_ptr<Checkpoints> checkpoints_;
  std::vector<Error> faults_;
};

}  // namespace

TEST_SUITE_BEGIN("node.checkpoints");

TEST_CASE("a checkpoint is due after so many bytes of log, counted anew from each (L33)") {
  Checkpoints::Limits limits = never;
  limits.log_bytes = 1000;
  Rig rig(limits);
  rig.apply(10, 999);
  CHECK(rig.after(1min) == 0);
  rig.apply(10, 1);
  CHECK(rig.after(1s) == 2);
  rig.apply(10, 999);
  CHECK(rig.after(1min) == 2);
  rig.apply(10, 500);
  CHECK(rig.after(1s) == 4);
}

TEST_CASE("a checkpoint is due once the database file grew by so much, counted anew from each (L33)") {
  Checkpoints::Limits limits = never;
  limits.growth_bytes = 1u << 20;
  Rig rig(limits);
  rig.apply(900'000, 1);
  CHECK(rig.after(1min) == 0);
  rig.apply(300'000, 1);
  CHECK(rig.after(1s) == 2);
  rig.apply(10'000, 1);
  CHECK(rig.after(1min) == 2);
}

TEST_CASE("a checkpoint is due after the interval, if anything was applied since the one before (L33)") {
  Checkpoints::Limits limits = never;
  limits.interval = 30s;
  Rig rig(limits);
  CHECK(rig.after(1min) == 0);
  rig.apply(10, 1);
  CHECK(rig.after(1s) == 1);
  rig.apply(10, 1);
  CHECK(rig.after(20s) == 1);
  CHECK(rig.after(20s) == 2);
}

TEST_CASE("a checkpoint that cannot be written is a fault of the member, and the one before stays in force (E6)") {
  Checkpoints::Limits limits = never;
  limits.log_bytes = 1;
  Rig rig(limits);
  rig.apply(10, 1);
  CHECK(rig.after(1s) == 1);
  CHECK(rig.faults().empty());
  std::filesystem::create_directory(rig.path() / "checkpoint.tmp");  // where a file should be
  rig.apply(10, 1);
  CHECK(rig.after(1s) == 1);
  REQUIRE_FALSE(rig.faults().empty());
  CHECK(rig.faults().front() == Errc::io_error);
}

TEST_SUITE_END();
