// Power loss and failing calls at every point: every acknowledged entry and vote is found again, nothing is invented,
// and recovery may itself be interrupted.
#include <algorithm>
#include <functional>

#include "log/log.hpp"
#include "support.hpp"

using namespace flotilla;
using namespace flotilla::log;
using namespace flotilla::log::test;

namespace {

/// What may be found after an interruption: one of these, with the log beginning anywhere in [first, first_max].
struct Expected {
  Model model;
  std::uint64_t first_max = 0;
};

Model model_of(Log& log) {
  Model found;
  found.first = log.first_index().value;
  found.held = read_all(log);
  return found;
}

bool matches(const Model& found, const Expected& expected) {
  const Model& model = expected.model;
  if (found.hard_state != model.hard_state || found.last() != model.last() || found.commit != model.commit)
    return false;
  if (found.first > std::max(model.first, expected.first_max)) return false;
  if (found.first < model.first) return false;
  return std::equal(found.held.begin(), found.held.end(),
                    model.held.end() - static_cast<std::ptrdiff_t>(found.held.size()), model.held.end());
}

/// A log on a file system that fails or loses power, and what it owes us.
class Subject {
 public:
  Subject(FileSystem& files, LogOptions options) : files_(files), options_(std::move(options)) {}

  bool open() {
    Result<std::unique_ptr<Log>> log = Log::open(files_, options_);
    while (!log && log.error() == Errc::disk_full && when_full_ && when_full_()) log = Log::open(files_, options_);
    if (!log) {
      // A crash never looks like damage.
      REQUIRE(log.error() != Errc::damaged);
      return false;
    }
    log_ = std::move(*log);
    return true;
  }
  void close() { log_.reset(); }
  Log& log() { return *log_; }
  const Model& model() const { return acknowledged_; }

  /// What is done when the disk is full, before the call is tried again; false: it is not. Not set: the same.
  void when_full(std::function<bool()> then) { when_full_ = std::move(then); }
  /// Before that, what the log can do without.
  void trim_when_full() { trims_when_full_ = true; }

  /// False: it failed, and what becomes of it is open.
  bool append(const std::vector<raft::Entry>& what, std::optional<raft::HardState> hard_state, std::uint64_t commit) {
    Model after = acknowledged_;
    if (hard_state) after.hard_state = *hard_state;
    // A group that no segment holds is written in several blocks.
    std::size_t bytes = block_header_bytes;
    for (const raft::Entry& one : what) bytes += raft::record_bytes(one);
    const bool split = bytes > options_.segment_bytes;
    for (const raft::Entry& one : what) {
      after.put({one});
      after.commit = std::max(after.commit, std::min(commit, after.last()));
      if (split) maybe_.push_back({after, 0});
    }
    after.commit = std::max(after.commit, std::min(commit, after.last()));
    maybe_.push_back({after, 0});
    const Log::Write write{hard_state, what, Index{commit}};
    Result<void> done = log_->append({&write, 1});
    while (goes_on(done, after)) done = log_->resume();
    return settle(done.has_value(), after);
  }

  bool begin_anew(std::uint64_t last, std::uint64_t term) {
    Model after = acknowledged_;
    after.first = last + 1;
    after.held.clear();
    after.commit = last;
    maybe_.push_back({after, 0});
    Result<void> done = log_->begin_anew(Index{last}, Term{term});
    while (goes_on(done, after)) done = log_->begin_anew(Index{last}, Term{term});
    return settle(done.has_value(), after);
  }

  bool trim(std::uint64_t first) {
    maybe_.push_back({acknowledged_, std::min(first, acknowledged_.last() + 1)});
    const bool done = log_->trim(Index{first}).has_value();
    Model after = acknowledged_;
    after.forget_below(log_->first_index().value);
    return settle(done, after);
  }

  /// The log is open again after an interruption: what it holds must be what was acknowledged, or what was under way.
  void check_found() {
    Model found = model_of(*log_);
    found.hard_state = log_->recovered().hard_state;
    found.commit = log_->recovered().commit_index.value;
    REQUIRE(log_->recovered().last_index.value == found.last());
    if (!found.held.empty()) REQUIRE(log_->recovered().last_term == found.held.back().term);
    const bool before = matches(found, {acknowledged_, 0});
    const bool after =
        std::any_of(maybe_.begin(), maybe_.end(), [&](const Expected& one) { return matches(found, one); });
    if (!before && !after) {
      MESSAGE("found ", found.first, "..", found.last(), " commit ", found.commit, " term ",
              found.hard_state.term.value);
      MESSAGE("owed ", acknowledged_.first, "..", acknowledged_.last(), " commit ", acknowledged_.commit, " term ",
              acknowledged_.hard_state.term.value);
    }
    REQUIRE((before || after));
    acknowledged_ = found;  // from now on the core relies on it
    maybe_.clear();
  }

 private:
  bool goes_on(const Result<void>& done, Model& after) {
    if (done || done.error() != Errc::disk_full) return false;
    if (trims_when_full_) {
      const std::uint64_t first = acknowledged_.commit;
      REQUIRE(log_->trim(Index{first}));
      for (Expected& one : maybe_) one.first_max = std::max(one.first_max, first);
      acknowledged_.forget_below(log_->first_index().value);
      after.forget_below(log_->first_index().value);
    }
    return when_full_ && when_full_();
  }
  bool settle(bool done, const Model& after) {
    if (!done) return false;
    acknowledged_ = after;
    maybe_.clear();
    return true;
  }

  FileSystem& files_;
  const LogOptions options_;
  std::unique_ptr<Log> log_;
  Model acknowledged_;
  std::vector<Expected> maybe_;
  std::function<bool()> when_full_;
  bool trims_when_full_ = false;
};

/// Votes, rolls, a split group, a superseded suffix over three segments, trims, a log that begins anew.
bool run_script(Subject& subject) {
  if (!subject.open()) return false;
  if (!subject.append({}, vote(1, 2), 0)) return false;
  for (std::uint64_t index = 1; index <= 9; ++index) {
    if (!subject.append(entries(index, index, 1, 400), std::nullopt, index / 2)) return false;
  }
  if (!subject.append({}, vote(2, 3), 4)) return false;
  if (!subject.append(entries(5, 7, 2, 300), vote(2, 3), 4)) return false;
  if (!subject.append(entries(8, 14, 2, 700), std::nullopt, 6)) return false;
  if (!subject.trim(7)) return false;
  if (!subject.append(entries(15, 15, 3, 3000), vote(3), 15)) return false;
  if (!subject.append(entries(16, 17, 3, 40), std::nullopt, 15)) return false;
  if (!subject.begin_anew(50, 3)) return false;
  if (!subject.append(entries(51, 52, 4, 100), vote(4, 1), 0)) return false;
  if (!subject.trim(52)) return false;
  return subject.append(entries(52, 53, 5, 500), vote(5), 51);
}

const LogOptions script_options = small_options(2048);

std::uint64_t calls_of_script() {
  MemoryFileSystem memory;
  FaultyFileSystem files(memory);
  Subject subject(files, script_options);
  files.set_fault({});
  REQUIRE(run_script(subject));
  return files.calls();
}

}  // namespace

TEST_SUITE_BEGIN("log.crash");

TEST_CASE("power lost at every call keeps what was acknowledged and invents nothing") {
  const std::uint64_t calls = calls_of_script();
  REQUIRE(calls > 100);
  std::mt19937_64 random(1);
  for (std::uint64_t at = 0; at <= calls; ++at) {
    CAPTURE(at);
    for (const bool partly : {false, true}) {
      CAPTURE(partly);
      for (int rule = 0; rule < 6; ++rule) {
        CAPTURE(rule);
        MemoryFileSystem memory;
        FaultyFileSystem faulty(memory);
        faulty.set_fault({.at = at, .from_then_on = true, .partly = partly});
        Subject subject(faulty, script_options);
        REQUIRE(run_script(subject) == (at == calls));
        subject.close();
        memory.crash([&] { return rule == 0 || (rule > 1 && random() % 2 == 0); });
        faulty.set_fault({});
        REQUIRE(subject.open());
        subject.check_found();
        // Again, and after one more loss of power: recovery made durable what it found.
        subject.close();
        memory.crash([] { return false; });
        REQUIRE(subject.open());
        subject.check_found();
      }
    }
  }
}

TEST_CASE("recovery interrupted at every call is repeated without loss") {
  const std::uint64_t calls = calls_of_script();
  std::mt19937_64 random(2);
  for (std::uint64_t at = 0; at <= calls; ++at) {
    CAPTURE(at);
    MemoryFileSystem memory;
    FaultyFileSystem faulty(memory);
    faulty.set_fault({.at = at, .from_then_on = true, .partly = true});
    Subject subject(faulty, script_options);
    static_cast<void>(run_script(subject));
    subject.close();
    memory.crash([&] { return random() % 2 == 0; });
    for (std::uint64_t step = 0;; ++step) {
      CAPTURE(step);
      const std::unique_ptr<MemoryFileSystem> copy = memory.clone();
      FaultyFileSystem disturbed(*copy);
      disturbed.set_fault({.at = step, .from_then_on = true, .partly = step % 2 == 1});
      const Result<std::unique_ptr<Log>> first = Log::open(disturbed, script_options);
      if (!first) REQUIRE(first.error() != Errc::damaged);
      copy->crash([&] { return random() % 2 == 0; });
      const std::unique_ptr<MemoryFileSystem> other = memory.clone();
      const auto undisturbed = must_open(*other, script_options);
      const auto second = must_open(*copy, script_options);
      REQUIRE(second->recovered().hard_state == undisturbed->recovered().hard_state);
      REQUIRE(second->recovered().commit_index == undisturbed->recovered().commit_index);
      REQUIRE(model_of(*second).held == model_of(*undisturbed).held);
      REQUIRE(second->last_index() == undisturbed->last_index());
      if (!disturbed.struck()) break;
    }
  }
}

TEST_CASE("segments made ahead are given up without leaving a gap, wherever the power goes") {
  MemoryFileSystem pristine;
  {
    const auto log = must_open(pristine, script_options);
    REQUIRE(append(*log, entries(1, 3, 1), vote(1)));
  }
  for (std::uint64_t id = 2; id < 7; ++id) pristine.set_contents(segment_path(id), std::string(2048, '\0'));
  std::mt19937_64 random(3);
  bool reached = true;
  for (std::uint64_t at = 0; reached; ++at) {
    CAPTURE(at);
    for (int round = 0; round < 20; ++round) {
      const std::unique_ptr<MemoryFileSystem> disk = pristine.clone();
      FaultyFileSystem faulty(*disk);
      faulty.set_fault({.at = at, .from_then_on = true, .partly = round % 2 == 0});
      static_cast<void>(Log::open(faulty, script_options));
      reached = faulty.struck();
      disk->crash([&] { return random() % 2 == 0; });
      const auto log = must_open(*disk, script_options);
      CHECK(read_all(*log) == entries(1, 3, 1));
      CHECK(segment_paths(*disk).size() == 2);
    }
  }
}

TEST_CASE("each call failing once ends the run of the log and loses nothing") {
  const std::uint64_t calls = calls_of_script();
  for (std::uint64_t at = 0; at < calls; ++at) {
    CAPTURE(at);
    for (const bool partly : {false, true}) {
      CAPTURE(partly);
      MemoryFileSystem memory;
      FaultyFileSystem faulty(memory);
      faulty.set_fault({.at = at, .partly = partly});
      Subject subject(faulty, script_options);
      REQUIRE_FALSE(run_script(subject));
      REQUIRE(faulty.struck());
      // The process is started again; the machine was not.
      subject.close();
      memory.forget_unsynced();
      REQUIRE(subject.open());
      subject.check_found();
      // And only what recovery itself brought to the medium survives the next loss of power.
      subject.close();
      memory.crash([] { return false; });
      REQUIRE(subject.open());
      subject.check_found();
    }
  }
}

TEST_CASE("a disk that is full at any call is waited for, and power may be lost meanwhile") {
  std::mt19937_64 random(4);
  bool reached = true;
  for (std::uint64_t at = 0; reached; ++at) {
    CAPTURE(at);
    for (unsigned way = 0; way < 16; ++way) {
      CAPTURE(way);
      const bool from_then_on = (way & 1) != 0;
      const bool goes_on = (way & 4) != 0;
      MemoryFileSystem memory;
      FaultyFileSystem faulty(memory);
      faulty.set_fault({.at = at, .from_then_on = from_then_on, .error = Errc::disk_full, .partly = (way & 2) != 0});
      Subject subject(faulty, script_options);
      if ((way & 8) != 0) subject.trim_when_full();
      bool struck = false;
      subject.when_full([&] {
        struck = true;
        if (from_then_on) faulty.set_fault({});
        return goes_on;
      });
      const bool done = run_script(subject);
      REQUIRE(done == (goes_on || !struck));
      reached = struck || faulty.struck();  // also one that spoils only the making of a segment ahead
      subject.close();
      memory.crash([&] { return random() % 2 == 0; });
      faulty.set_fault({});
      REQUIRE(subject.open());
      subject.check_found();
    }
  }
}

TEST_CASE("random operations, restarts and crashes agree with a vector") {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const auto below = [&](std::uint64_t bound) { return random() % bound; };
    MemoryFileSystem memory;
    FaultyFileSystem faulty(memory);
    faulty.set_fault({});
    LogOptions options = small_options(1024u << below(4));
    Subject subject(faulty, options);
    REQUIRE(subject.open());
    for (int step = 0; step < 150; ++step) {
      CAPTURE(step);
      if (below(10) == 0) faulty.set_fault({.at = below(8), .from_then_on = true, .partly = below(2) == 0});
      const Model& now = subject.model();
      bool alive = true;
      switch (below(20)) {
        case 0: alive = subject.trim(now.first + below(now.held.size() + 2)); break;
        case 1:
          if (below(4) == 0) alive = subject.begin_anew(now.last() + below(20), now.hard_state.term.value);
          break;
        case 2:
          subject.close();
          alive = subject.open();
          faulty.set_fault({});
          if (alive) subject.check_found();
          break;
        case 4: {
          // Torn at the start of a segment; then more segments, and a trim that is interrupted.
          faulty.set_fault({.at = below(12), .from_then_on = true, .partly = true});
          const std::uint64_t from = now.last() + 1;
          alive =
              subject.append(entries(from, from, now.hard_state.term.value, options.segment_bytes), std::nullopt, 0);
          if (alive) break;
          subject.close();
          memory.crash([&] { return below(2) == 0; });
          faulty.set_fault({});
          REQUIRE(subject.open());
          subject.check_found();
          for (int more = 0; more < 3; ++more) {
            const std::uint64_t next = now.last() + 1;
            REQUIRE(subject.append(entries(next, next, now.hard_state.term.value, options.segment_bytes / 2),
                                   std::nullopt, now.last()));
          }
          faulty.set_fault({.at = below(12), .from_then_on = true, .partly = below(2) == 0});
          alive = subject.trim(now.last());
          break;
        }
        case 3: {
          subject.close();
          memory.crash([&] { return below(2) == 0; });
          alive = subject.open();
          faulty.set_fault({});
          if (alive) subject.check_found();
          break;
        }
        default: {
          std::optional<raft::HardState> hard_state;
          std::uint64_t term = now.hard_state.term.value;
          if (term == 0 || below(4) == 0) {
            hard_state = vote(++term, below(3));
          } else if (below(4) == 0 && !now.hard_state.voted_for) {
            hard_state = vote(term, 1 + below(3));
          }
          std::vector<raft::Entry> what;
          const std::uint64_t lowest = now.commit + 1;
          std::uint64_t from = now.last() + 1;
          if (hard_state && below(2) == 0) from = lowest + below(from - lowest + 1);
          const std::uint64_t count = below(6);
          if (count > 0) what = entries(from, from + count - 1, term, 20 + below(below(8) == 0 ? 5000 : 400));
          alive = subject.append(what, hard_state, now.commit + below(now.last() - now.commit + 1));
          break;
        }
      }
      if (!alive) {
        subject.close();
        memory.crash([&] { return below(3) != 0; });
        faulty.set_fault({});
        REQUIRE(subject.open());
        subject.check_found();
      }
      faulty.set_fault({});
      if (below(8) == 0) check_same(subject.log(), subject.model());
    }
  }
}

TEST_SUITE_END();
