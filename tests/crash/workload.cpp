#include "workload.hpp"

#include <algorithm>
#include <numeric>
#include <thread>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "flotilla/db.hpp"
#include "raft/configuration.hpp"
#include "recorder.hpp"
#include "state/payload.hpp"

namespace crash {

using flotilla::Errc;
using flotilla::fail;
using flotilla::NodeId;
using flotilla::Result;
using flotilla::Term;
namespace raft = flotilla::raft;
namespace state = flotilla::state;

namespace {

/// Of a client somewhere in the cluster.
constexpr std::uint64_t session = 77;
constexpr NodeId client{70};

raft::HardState later(const raft::HardState& now, Random& random, NodeId self) {
  const NodeId votes[] = {NodeId{}, self, NodeId{2}, NodeId{3}};
  return {Term{now.term.value + 1 + random.below(2)}, votes[random.below(4)]};
}

}  // namespace

const std::vector<Workload>& workloads() {
  //                 work commit term supersede trim install copy protect restart full checkpoint compact
  static const std::vector<Workload> all{
      {"first-start", 4, {3, 2, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0}, 100},
      {"roll", 50, {12, 6, 1, 0, 2, 0, 0, 1, 1, 0, 2, 0}, 1500},
      {"supersede", 40, {8, 2, 1, 4, 1, 0, 0, 0, 1, 0, 1, 0}, 3000},
      {"votes", 50, {3, 2, 8, 1, 0, 0, 0, 1, 1, 0, 1, 0}, 100},
      {"trim", 50, {8, 6, 0, 0, 5, 0, 0, 1, 1, 0, 4, 1}, 2000},
      {"checkpoint", 50, {8, 8, 0, 0, 1, 0, 0, 0, 2, 0, 8, 1}, 300},
      {"install", 30, {6, 3, 1, 2, 1, 3, 0, 1, 1, 0, 2, 1}, 1500},
      {"copy", 30, {6, 4, 0, 0, 1, 1, 3, 0, 1, 0, 2, 0}, 500},
      {"compact", 30, {8, 6, 1, 1, 2, 1, 0, 0, 1, 0, 3, 4}, 1000},
      {"full", 40, {8, 4, 1, 1, 2, 1, 1, 1, 0, 4, 3, 2}, 1500},
      {"faults", 24, {10, 6, 2, 2, 3, 2, 2, 1, 2, 0, 4, 1}, 3000},
      {"mixed", 60, {10, 6, 2, 2, 2, 1, 1, 1, 1, 1, 3, 1}, 2000},
  };
  return all;
}

const Workload* find_workload(std::string_view name) {
  const auto& all = workloads();
  const auto at = std::find_if(all.begin(), all.end(), [&](const Workload& one) { return one.name == name; });
  return at == all.end() ? nullptr : &*at;
}

// ---- the driver

Result<void> Driver::run(const Workload& workload) {
  if (auto started = restart(); !started) return started;
  for (unsigned i = 0; i < workload.length; ++i) {
    if (auto done = step(workload); !done) return done;
  }
  member_.stop();
  return {};
}

/// This member, two more voters, and a learner that moves; or this one alone.
std::string Driver::configuration(std::uint64_t moves) const {
  raft::Configuration configuration;
  if (!sole_) {
    configuration.members.push_back({NodeId{2}, "second:1", true});
    configuration.members.push_back({NodeId{3}, "third:1", true});
    configuration.members.push_back({NodeId{5}, fmt::format("learner:{}", moves), false});
  }
  configuration.members.push_back({member_.started().identity.node_id, "", true});
  return raft::encode(configuration);
}

raft::Entry Driver::some_entry(std::uint64_t after) {
  if (!truth_.model().session_open(session)) {
    // Until its opening is committed there may be several of it in the log.
    return member_.next(after, raft::EntryType::session, state::encode_session({client, 1, session, {"work"}}));
  }
  if (random_.one_in(25)) {
    return member_.next(after, raft::EntryType::configuration, configuration(after));
  }
  const std::uint64_t index = after + 1;
  const bool again = random_.one_in(15) && index > 20;  // a second copy of a call
  const std::uint64_t sequence = again ? index - random_.below(15) : index;
  const std::size_t filler = random_.one_in(3) ? random_.below(filler_bytes_max_ + 1) : random_.below(60);
  return member_.next(after, raft::EntryType::command,
                      encode_work(session, sequence, index > 12 ? index - 12 : 0, random_(), filler));
}

/// As the leader of the term that the member knows would have it.
Result<void> Driver::work(unsigned count, std::uint64_t after) {
  std::vector<raft::Entry> entries;
  std::uint64_t at = after;
  // A new term begins with its own entry; the others follow in another group.
  if (member_.term_at(at) != member_.hard_state().term.value) {
    if (auto done = member_.append(std::nullopt, {member_.next(at++, raft::EntryType::noop, {})}); !done) return done;
  }
  for (unsigned i = 0; i < count; ++i) entries.push_back(some_entry(at++));
  return member_.append(std::nullopt, std::move(entries));
}

Result<void> Driver::commit_some() {
  const std::uint64_t from = truth_.last();
  if (member_.last() <= from) return {};
  return member_.commit(from + 1 + random_.below(member_.last() - from));
}

Result<void> Driver::new_term() {
  const raft::HardState& now = member_.hard_state();
  const NodeId self = member_.started().identity.node_id;
  if (!now.voted_for && random_.one_in(2)) return member_.append(raft::HardState{now.term, NodeId{2}}, {});
  return member_.append(later(now, random_, self), {});
}

/// What was committed elsewhere, by a leader that this member never heard.
Result<void> Driver::install() {
  Term term = member_.hard_state().term;
  if (random_.one_in(2)) term = Term{term.value + random_.below(3)};
  const std::uint64_t before = truth_.last();
  std::uint64_t until = before + 1 + random_.below(12);
  // Half of the time some of it is what this member has, not yet committed.
  if (random_.one_in(2)) {
    while (truth_.last() < std::min(until, member_.last()) && member_.entry(truth_.last() + 1).term <= term) {
      truth_.add(member_.entry(truth_.last() + 1));
    }
    if (random_.one_in(2) && truth_.last() > before) until = truth_.last();
  }
  // One term has one leader: where it wrote something else than this member has, its term is another.
  if (member_.last() > truth_.last() && term.value <= member_.last_term()) term = Term{member_.last_term() + 1};
  while (truth_.last() < until) {
    const std::uint64_t index = truth_.last() + 1;
    raft::Entry entry{.term = term,
                      .index = flotilla::Index{index},
                      .type = raft::EntryType::command,
                      .time = 1'000'000 + index,
                      .payload = flotilla::SharedBytes(encode_work(0, 0, 0, random_(), random_.below(100)))};
    raft::seal(entry);
    truth_.add(entry);
  }
  if (member_.hard_state().term < term && random_.one_in(2)) {
    if (auto done = member_.append(raft::HardState{term, {}}, {}); !done) return done;
  }
  return member_.install();
}

Result<void> Driver::catch_up() {
  if (sole_) {
    truth_.cut(member_.last());
    return member_.commit(member_.last());
  }
  if (member_.known_commit() > truth_.last()) {  // a first start
    if (auto done = member_.commit(member_.known_commit()); !done) return done;
  }
  if (truth_.last() == 1) {
    // Alone it would take all of its log for committed.
    if (member_.last() == 1) {
      auto others = member_.next(1, raft::EntryType::configuration, configuration(1));
      if (auto done = member_.append(std::nullopt, {std::move(others)}); !done) return done;
    }
    return member_.commit(2);
  }
  const std::uint64_t committed = truth_.last();
  std::uint64_t matching = std::min(member_.known_commit(), committed);
  while (matching < std::min(committed, member_.last()) &&
         member_.term_at(matching + 1) == truth_.entry(matching + 1).term.value) {
    ++matching;
  }
  if (matching < committed) {
    if (random_.one_in(2)) return member_.install();
    std::vector<raft::Entry> entries;
    for (std::uint64_t i = matching + 1; i <= committed; ++i) entries.push_back(truth_.entry(i));
    std::optional<raft::HardState> hard_state;
    if (member_.hard_state().term < entries.back().term) hard_state = raft::HardState{entries.back().term, {}};
    if (auto done = member_.append(hard_state, std::move(entries)); !done) return done;
  }
  return committed > member_.applied() ? member_.commit(committed) : Result<void>();
}

/// After the end of a killed process, or of one that was closed.
Result<void> Driver::restart() {
  if (member_.running() && random_.one_in(2)) {
    if (auto closed = member_.close(); !closed) return closed;
  }
  member_.stop();
  if (auto started = member_.start(); !started) return started;
  return catch_up();
}

/// The disk is full from some call on, until the member waits or has stopped for it, or a while later.
Result<void> Driver::fill_disk(const Workload& workload) {
  IoFault fault;
  fault.at = Recorder::calls() + random_.below(30);
  fault.code = ENOSPC;
  fault.from_then_on = true;
  Recorder::set_fault(fault);
  Workload others = workload;
  others.weights[static_cast<std::size_t>(Step::full)] = 0;
  Result<void> done;
  for (unsigned i = 0; i < 6 && done; ++i) done = step(others);
  Recorder::set_fault({});
  if (!done && done.error() == Errc::disk_full && member_.running() && random_.one_in(2)) return go_on();
  if (!done) member_.stop();  // it failed: nothing is written any more
  if (!done && done.error() != Errc::disk_full && done.error() != Errc::io_error) return done;
  return restart();
}

/// Entries are committed while the copy is made, so that it has to catch up.
Result<void> Driver::compact() {
  if (!sole_ && truth_.last() == member_.last()) {
    if (auto done = work(1 + static_cast<unsigned>(random_.below(6)), member_.last()); !done) return done;
  }
  member_.begin_compaction();
  if (auto done = sole_ ? member_.commit(member_.last()) : commit_some(); !done) return done;
  return member_.end_compaction();
}

/// Perhaps there is space because the log could be trimmed.
Result<void> Driver::go_on() {
  while (random_.one_in(2)) {
    if (auto done = member_.checkpoint(); !done) return done;
  }
  static_cast<void>(member_.trim(member_.checkpoint_index()));
  if (auto done = member_.go_on(); !done) return done;
  return catch_up();
}

Result<void> Driver::step(const Workload& workload) {
  filler_bytes_max_ = workload.filler_bytes_max;
  const unsigned sum = std::accumulate(workload.weights.begin(), workload.weights.end(), 0u);
  std::uint64_t drawn = random_.below(sum);
  std::size_t which = 0;
  while (drawn >= workload.weights[which]) drawn -= workload.weights[which++];
  // What a crash left behind has to be brought in order first.
  if (truth_.last() > member_.known_commit()) return catch_up();
  if (sole_) {
    if (random_.one_in(3)) return member_.checkpoint();
    if (random_.one_in(8)) return compact();
    if (auto done = work(1 + static_cast<unsigned>(random_.below(4)), member_.last()); !done) return done;
    return member_.commit(member_.last());
  }
  switch (static_cast<Step>(which)) {
    case Step::work: return work(1 + static_cast<unsigned>(random_.below(5)), member_.last());
    case Step::commit: return commit_some();
    case Step::term: return new_term();
    case Step::supersede: {
      // A suffix over several segments, and then another in its place.
      if (auto done = work(6 + static_cast<unsigned>(random_.below(8)), member_.last()); !done) return done;
      if (auto done = new_term(); !done) return done;
      if (member_.hard_state().term.value == member_.last_term()) return {};
      const std::uint64_t from = truth_.last();
      return work(1 + static_cast<unsigned>(random_.below(6)), from + random_.below(member_.last() - from));
    }
    case Step::trim: {
      const std::uint64_t kept = random_.below(6);
      return member_.checkpoint_index() <= kept ? Result<void>() : member_.trim(member_.checkpoint_index() - kept);
    }
    case Step::install: return install();
    case Step::copy: return member_.copy();
    case Step::protect: return member_.protect();
    case Step::restart: return restart();
    case Step::full: return fill_disk(workload);
    case Step::checkpoint: return member_.checkpoint();
    case Step::compact: return compact();
  }
  return {};
}

// ---- a real database

Result<void> run_db(const std::filesystem::path& data_dir, std::uint64_t seed) {
  constexpr unsigned callers = 3;
  Random random(seed);
  flotilla::Options options;
  options.data_dir = data_dir;
  options.segment_bytes = 64u << 10;
  options.map_size = 64u << 20;
  options.trailing_entries = 20;
  options.checkpoint_log_bytes = 20u << 10;
  options.checkpoint_interval = std::chrono::milliseconds(30);
  options.heartbeat_interval = std::chrono::milliseconds(2);
  options.election_timeout = std::chrono::milliseconds(20);
  options.log_sink = [](flotilla::LogLevel, std::string_view) {};
  for (int opened = 0; opened < 3; ++opened) {
    auto db = flotilla::DB::open(options, commands());
    if (!db) return fail(db.error());
    std::vector<std::thread> threads;
    std::vector<flotilla::Error> errors;
    std::mutex mutex;
    for (unsigned caller = 0; caller < callers; ++caller) {
      threads.emplace_back([&, own = mixed(seed, 10 * opened + caller)] {
        Random numbers(own);
        std::vector<std::future<Result<flotilla::Bytes>>> futures;
        for (int i = 0; i < 25; ++i) {
          const std::string number = std::to_string(numbers());
          const std::string filler(numbers.below(2500), 'f');
          auto result = db->command("work", {number, filler}).get();
          if (result) {
            Recorder::mark(MarkKind::acknowledged, std::stoull(*result));
          } else if (result.error() != Errc::not_found) {
            const std::lock_guard lock(mutex);
            errors.push_back(result.error());
          }
        }
      });
    }
    if (opened > 0) {
      if (auto compacted = db->compact().get(); !compacted) errors.push_back(compacted.error());
    }
    for (std::thread& thread : threads) thread.join();
    if (!errors.empty()) return fail(errors.front());
    if (auto closed = db->close(); !closed) return fail(closed.error());
  }
  return {};
}

}  // namespace crash
