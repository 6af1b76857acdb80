// A few cores in one thread: messages and durable writes complete when the test says so.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "raft/core.hpp"

namespace flotilla::raft::testing {

inline NodeId node(std::uint64_t value) {
  return NodeId{value};
}
inline Member voter(std::uint64_t value) {
  return Member{NodeId{value}, "", true};
}
inline Member learner(std::uint64_t value) {
  return Member{NodeId{value}, "", false};
}
inline Configuration voters(std::initializer_list<std::uint64_t> ids) {
  Configuration configuration;
  for (std::uint64_t id : ids) configuration.members.push_back(voter(id));
  return configuration;
}
inline Entry entry(std::uint64_t index, std::uint64_t term, std::string text = "") {
  Entry made{Term{term}, Index{index}, EntryType::command, 0, 0, SharedBytes(std::move(text))};
  seal(made);
  return made;
}
inline Entry configuration_entry(std::uint64_t index, std::uint64_t term, const Configuration& configuration) {
  Entry made{Term{term}, Index{index}, EntryType::configuration, 0, 0, SharedBytes(encode(configuration))};
  seal(made);
  return made;
}
template <class T>
const T* body_of(const Message& message) {
  return std::get_if<T>(&message.body);
}

/// What a member finds after a power loss.
struct Disk {
  HardState hard_state;
  Index commit_index;
  SnapshotMeta base;           ///< the state is as of here; index 0 at the very beginning
  std::vector<Entry> state;    ///< what was applied up to base
  std::vector<Entry> entries;  ///< base.index + 1 ...

  Index last_index() const { return base.index + entries.size(); }
  void write(const Ready& ready) {
    if (ready.hard_state.has_value()) hard_state = *ready.hard_state;
    if (ready.log_restart.has_value()) {
      REQUIRE(ready.log_restart->index == base.index);  // installed before the log was told to begin anew
      entries.clear();
    }
    for (const Entry& written : ready.entries) {
      REQUIRE(written.index > base.index);
      REQUIRE(written.index <= last_index().next());
      entries.resize(static_cast<std::size_t>(written.index - base.index) - 1);
      entries.push_back(written);
    }
    if (ready.must_write()) commit_index = ready.commit_index;
  }
};

struct Server {
  Disk disk;
  std::optional<Core> core;   ///< none while it is down
  std::deque<Ready> writing;  ///< taken, not durable yet
  bool auto_sync = true;
  bool auto_apply = true;
  std::vector<Entry> state;  ///< applied, from the beginning on
  std::vector<ReadState> reads;
  std::vector<LogRead> log_reads;
  std::vector<SnapshotSend> snapshot_sends;
  std::optional<SnapshotOffer> offer;
  std::optional<std::pair<SnapshotMeta, std::vector<Entry>>> received;  ///< snapshot bytes, not installed
  std::uint64_t starts = 0;
  unsigned role_changes = 0;
};

/// Nodes 1 ... with the given configuration in force from the beginning.
class Cluster {
 public:
  explicit Cluster(std::uint64_t count, std::optional<Configuration> configuration = std::nullopt,
                   std::function<void(CoreOptions&)> adjust = {})
      : adjust_(std::move(adjust)) {
    if (!configuration.has_value()) {
      configuration.emplace();
      for (std::uint64_t id = 1; id <= count; ++id) configuration->members.push_back(voter(id));
    }
    for (std::uint64_t id = 1; id <= count; ++id) {
      servers_[id].disk.base.configuration = *configuration;
      start(id);
    }
  }

  // ---- servers ----
  Server& server(std::uint64_t id) { return servers_.at(id); }
  Core& core(std::uint64_t id) { return *servers_.at(id).core; }
  Disk& disk(std::uint64_t id) { return servers_.at(id).disk; }
  bool up(std::uint64_t id) { return servers_.at(id).core.has_value(); }
  /// A new server with an empty log and without a configuration.
  void add(std::uint64_t id) {
    servers_[id];
    start(id);
  }
  /// With a log of its own before it first starts.
  void replace_log(std::uint64_t id, std::vector<Entry> entries, HardState hard_state, Index commit_index = {}) {
    Disk& where = disk(id);
    where.entries = std::move(entries);
    where.hard_state = hard_state;
    where.commit_index = commit_index;
    start(id);
  }
  void start(std::uint64_t id) {
    Server& at = servers_.at(id);
    CoreOptions options{NodeId{id}};
    options.seed = id * 1000 + at.starts++;
    if (adjust_) adjust_(options);
    Disk& from = at.disk;
    // A snapshot was installed, and what goes with it in the log was not written.
    if (from.hard_state.term < from.base.term) from.hard_state = {from.base.term, NodeId{}};
    at.core.emplace(options, Restored{
                                 .hard_state = from.hard_state,
                                 .base_index = from.base.index,
                                 .base_term = from.base.term,
                                 .configuration = from.base.configuration,
                                 .configuration_index = from.base.configuration_index,
                                 .entries = from.entries,
                                 .commit_index = from.commit_index,
                                 .applied_index = from.base.index,
                                 .first_index = from.base.index.next(),
                                 .time = from.base.time,
                             });
    at.writing.clear();
    at.state = from.state;
    at.reads.clear();
    at.log_reads.clear();
    at.snapshot_sends.clear();
    at.offer.reset();
    at.received.reset();
  }
  /// Loses what is not durable, and what it had sent to itself.
  void crash(std::uint64_t id) {
    servers_.at(id).core.reset();
    servers_.at(id).writing.clear();
  }
  void restart(std::uint64_t id) {
    crash(id);
    start(id);
  }

  // ---- disk ----
  void hold_writes(std::uint64_t id) { server(id).auto_sync = false; }
  void release_writes(std::uint64_t id) {
    server(id).auto_sync = true;
    while (sync_one(id)) {
    }
  }
  /// Completes the oldest write. False if there is none.
  bool sync_one(std::uint64_t id) {
    Server& at = server(id);
    if (at.writing.empty()) return false;
    Ready ready = std::move(at.writing.front());
    at.writing.pop_front();
    at.disk.write(ready);
    if (on_sync) on_sync(id, ready);
    const bool wrote = !ready.entries.empty();
    core(id).persisted(ready.sequence, wrote ? ready.entries.back().term : Term{},
                       wrote ? ready.entries.back().index : Index{});
    for (Message& message : ready.messages_after_sync) network.push_back(std::move(message));
    return true;
  }
  /// The state and the log up to before `first` become a checkpoint, and leave the log.
  void trim(std::uint64_t id, Index first) {
    Server& at = server(id);
    REQUIRE(first.previous() <= at.disk.last_index());
    REQUIRE(first.previous().value <= at.state.size());
    const SnapshotMeta meta = snapshot_meta(id, first.previous());
    at.disk.entries.erase(at.disk.entries.begin(),
                          at.disk.entries.begin() + static_cast<std::ptrdiff_t>(first.previous() - at.disk.base.index));
    at.disk.base = meta;
    at.disk.state.assign(at.state.begin(), at.state.begin() + static_cast<std::ptrdiff_t>(meta.index.value));
    core(id).trimmed(first);
  }
  /// Of what this server applied up to `index`.
  SnapshotMeta snapshot_meta(std::uint64_t id, Index index) {
    const Server& at = server(id);
    const Entry& last = at.state.at(static_cast<std::size_t>(index.value - 1));
    SnapshotMeta meta{index, last.term, at.disk.base.configuration, at.disk.base.configuration_index, last.time};
    if (at.disk.base.configuration_index > index) FAIL("the checkpoint is newer");
    for (const Entry& applied : at.state) {
      if (applied.index > index || applied.type != EntryType::configuration) continue;
      if (applied.index <= meta.configuration_index) continue;
      meta.configuration = *decode_configuration(applied.payload.view());
      meta.configuration_index = applied.index;
    }
    return meta;
  }

  // ---- network ----
  std::deque<Message> network;
  /// False: the message is lost.
  std::function<bool(const Message&)> filter;
  void cut(std::uint64_t from, std::uint64_t to) { cuts_.insert({from, to}); }
  void isolate(std::uint64_t id) {
    for (auto& [other, at] : servers_) {
      cut(id, other);
      cut(other, id);
    }
  }
  /// Both ways between the two groups.
  void split(const std::vector<std::uint64_t>& left, const std::vector<std::uint64_t>& right) {
    for (std::uint64_t a : left) {
      for (std::uint64_t b : right) {
        cut(a, b);
        cut(b, a);
      }
    }
  }
  void heal() { cuts_.clear(); }
  bool passes(const Message& message) {
    if (cuts_.contains({message.from.value, message.to.value})) return false;
    if (filter && !filter(message)) return false;
    return servers_.contains(message.to.value) && up(message.to.value);
  }

  // ---- observers ----
  std::function<void(std::uint64_t, const Ready&)> on_ready;  ///< as it was taken
  std::function<void(std::uint64_t, const Ready&)> on_sync;   ///< as it became durable

  // ---- running ----
  /// Takes every Ready of one server. Its immediate messages go to the network, its writes to its disk.
  void take(std::uint64_t id) {
    Server& at = server(id);
    while (at.core.has_value() && at.core->has_ready()) {
      Ready ready = at.core->take_ready();
      if (on_ready) on_ready(id, ready);
      for (Message& message : ready.messages) network.push_back(std::move(message));
      ready.messages.clear();
      apply(at, ready);
      at.role_changes += ready.role_changed ? 1u : 0u;
      at.reads.insert(at.reads.end(), ready.reads.begin(), ready.reads.end());
      at.log_reads.insert(at.log_reads.end(), ready.log_reads.begin(), ready.log_reads.end());
      at.snapshot_sends.insert(at.snapshot_sends.end(), ready.snapshot_sends.begin(), ready.snapshot_sends.end());
      if (ready.snapshot_offer.has_value()) at.offer = ready.snapshot_offer;
      at.writing.push_back(std::move(ready));
      const char* name = at.core->broken();
      REQUIRE_MESSAGE(name == nullptr, name);
      while (at.auto_sync && sync_one(id)) {
      }
    }
  }
  void take_all() {
    for (auto& [id, at] : servers_) take(id);
  }
  /// Delivers the oldest message. False if there is none.
  bool deliver_one() {
    if (network.empty()) return false;
    const Message message = std::move(network.front());
    network.pop_front();
    if (passes(message)) {
      core(message.to.value).step(message);
      take(message.to.value);
    }
    return true;
  }
  /// Until nothing happens any more without time passing.
  void settle() {
    std::size_t steps = 0;
    do {
      take_all();
      serve_all();
      REQUIRE(++steps < 100'000);
    } while (deliver_one() || anything_ready());
  }
  bool anything_ready() {
    for (auto& [id, at] : servers_) {
      if (at.core.has_value() && at.core->has_ready()) return true;
    }
    return false;
  }
  void tick(std::uint64_t id) {
    core(id).tick();
    take(id);
  }
  void tick_all(unsigned count = 1) {
    for (unsigned i = 0; i < count; ++i) {
      for (auto& [id, at] : servers_) {
        if (at.core.has_value()) tick(id);
      }
      settle();
    }
  }
  void tick_only(std::uint64_t id, unsigned count) {
    for (unsigned i = 0; i < count; ++i) tick(id);
    settle();
  }
  /// Whether log reads are answered and snapshots travel by themselves.
  bool serve = true;
  void serve_all() {
    for (auto& [id, at] : servers_) {
      if (!at.core.has_value() || !serve) continue;
      serve_log_reads(id);
      serve_snapshots(id);
      if (at.offer.has_value() && at.received.has_value()) install(id);
    }
  }
  void serve_log_reads(std::uint64_t id) {
    Server& at = server(id);
    for (const LogRead& read : std::exchange(at.log_reads, {})) answer_log_read(id, read);
    take(id);
  }
  void answer_log_read(std::uint64_t id, const LogRead& read) {
    const Disk& from = disk(id);
    std::vector<Entry> entries;
    Term prev_term;
    if (read.first_index > from.base.index && read.first_index <= from.last_index()) {
      const auto place = static_cast<std::size_t>(read.first_index - from.base.index) - 1;
      prev_term = place == 0 ? from.base.term : from.entries[place - 1].term;
      std::size_t bytes = 0;
      for (std::size_t i = place; i < from.entries.size(); ++i) {
        bytes += record_bytes(from.entries[i]);
        if (bytes > read.bytes_max && !entries.empty()) break;
        entries.push_back(from.entries[i]);
      }
    }
    core(id).loaded(read.peer, read.first_index, prev_term, std::move(entries));
  }
  void serve_snapshots(std::uint64_t id) {
    Server& at = server(id);
    for (const SnapshotSend& send : std::exchange(at.snapshot_sends, {})) bring_snapshot(id, send.peer.value);
    take(id);
  }
  void bring_snapshot(std::uint64_t from, std::uint64_t to) {
    Server& at = server(from);
    const bool reachable = servers_.contains(to) && up(to) && !cuts_.contains({from, to});
    if (!reachable || at.state.empty()) return core(from).snapshot_failed(node(to));
    const SnapshotMeta meta = snapshot_meta(from, Index{at.state.size()});
    server(to).received = std::pair(meta, at.state);
    core(from).snapshot_sent(node(to), meta);
  }
  void install(std::uint64_t id) {
    Server& at = server(id);
    const SnapshotMeta meta = at.received->first;
    at.offer.reset();
    if (meta.index <= Index{at.state.size()}) return core(id).snapshot_refused();
    // The log is one ordered stream: what was queued before comes first.
    while (sync_one(id)) {
    }
    const bool in_log = core(id).term_at(meta.index) == meta.term;
    at.state = std::move(at.received->second);
    at.received.reset();
    at.disk.state = at.state;
    if (in_log && meta.index <= at.disk.last_index()) {
      at.disk.entries.erase(at.disk.entries.begin(),
                            at.disk.entries.begin() + static_cast<std::ptrdiff_t>(meta.index - at.disk.base.index));
    } else {
      at.disk.entries.clear();
    }
    at.disk.base = meta;
    core(id).snapshot_installed(meta);
    take(id);
  }
  static void apply(Server& at, const Ready& ready) {
    for (const Entry& committed : ready.committed) {
      REQUIRE(committed.index == Index{at.state.size()}.next());
      at.state.push_back(committed);
    }
    if (!ready.committed.empty() && at.auto_apply) at.core->applied(ready.committed.back().index);
  }

  // ---- shortcuts ----
  /// Makes `id` the leader. The others must be willing: nobody may have heard a leader lately.
  void elect(std::uint64_t id) {
    core(id).campaign();
    settle();
    REQUIRE(core(id).role() == Role::leader);
  }
  /// The others forget their leader first.
  void depose_and_elect(std::uint64_t id) {
    forget_leader();
    elect(id);
  }
  /// Time passes for everybody without a message.
  void forget_leader() {
    auto before = std::exchange(filter, [](const Message&) { return false; });
    for (unsigned i = 0; i < 20; ++i) {
      for (auto& [id, at] : servers_) {
        if (at.core.has_value()) tick(id);
      }
      settle();
    }
    filter = std::move(before);
  }
  Core::Position propose(std::uint64_t id, std::string text) {
    const Result<Core::Position> position = core(id).propose(EntryType::command, SharedBytes(std::move(text)), 0);
    REQUIRE(position.has_value());
    return *position;
  }
  /// The commands that `id` applied, in order.
  std::string applied(std::uint64_t id) {
    std::string texts;
    for (const Entry& at : server(id).state) {
      if (at.type == EntryType::command) texts += std::string(at.payload.view()) + " ";
    }
    return texts;
  }
  /// The terms of the entries after the beginning of `id`'s log on disk.
  std::string terms(std::uint64_t id) {
    std::string texts;
    for (const Entry& at : disk(id).entries) texts += std::to_string(at.term.value) + " ";
    return texts;
  }
  std::optional<std::uint64_t> leader() {
    std::optional<std::uint64_t> found;
    for (auto& [id, at] : servers_) {
      if (!at.core.has_value() || at.core->role() != Role::leader) continue;
      if (!found.has_value() || at.core->term() > core(*found).term()) found = id;
    }
    return found;
  }
  template <class T>
  unsigned count_in_network() const {
    unsigned count = 0;
    for (const Message& message : network) count += std::holds_alternative<T>(message.body) ? 1u : 0u;
    return count;
  }
  void send(std::uint64_t from, std::uint64_t to, std::uint64_t term, Body body) {
    core(to).step(Message{node(from), node(to), Term{term}, std::move(body)});
    take(to);
  }

 private:
  std::function<void(CoreOptions&)> adjust_;
  std::map<std::uint64_t, Server> servers_;
  std::set<std::pair<std::uint64_t, std::uint64_t>> cuts_;
};

}  // namespace flotilla::raft::testing
