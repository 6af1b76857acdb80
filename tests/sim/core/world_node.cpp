// One member: its core, its log thread, its applier and its disk.
#include <algorithm>

#include "world.hpp"

namespace flotilla::sim {

using raft::Ready;

void World::start(Node& at) {
  recover(at.disk);
  ++at.incarnation;
  raft::CoreOptions options = plan_.options;
  options.id = at.id;
  options.seed = random_.next();
  const Term durable = at.disk.hard_state.term;
  raft::Restored from = restored(at);
  at.delivered = at.applied = from.applied_index;
  at.core.emplace(options, std::move(from));
  at.log = at.disk.log;
  at.before = at.core->facts();
  at.configuration_before = at.core->configuration();
  at.matched.clear();
  at.paused_until = 0;
  if (at.core->term() < durable) broken("term-monotone", "a restart forgot a term");
  note("starts", at);
  schedule(draw(tick_units / 2), Kind::tick, at.id.value);
  if (plan_.trims) schedule(draw(15 * tick_units), Kind::trim, at.id.value);
}

/// An installed snapshot whose restart of the log was lost: the log neither holds its entry nor begins after it, and
/// may never have heard of its term.
void World::recover(Disk& disk) {
  const Index at = disk.checkpoint.index;
  const bool holds = disk.log.has(at) && disk.log.at(at).entry.term == disk.checkpoint.term;
  if (holds || disk.log.base() == at) return;
  disk.log = ChainedLog(at, oracle_.chain(at));
  disk.log_base_term = disk.checkpoint.term;
  if (disk.hard_state.term < disk.checkpoint.term) disk.hard_state = {disk.checkpoint.term, NodeId{}};
  counters_.add(What::logs_dropped_at_start);
}

raft::Restored World::restored(Node& at) {
  const Disk& disk = at.disk;
  raft::Restored from;
  from.hard_state = disk.hard_state;
  from.commit_index = disk.commit_index;
  from.applied_index = disk.checkpoint.index;
  from.first_index = disk.log.base().next();
  // Entries that are applied may be given or not.
  const bool all = random_.below(2) == 0;
  const Index base = all ? disk.log.base() : disk.checkpoint.index;
  from.base_index = base;
  from.configuration = at.first;
  if (base) {
    from.base_term = oracle_.committed(base).term;
    from.time = oracle_.committed(base).time;
    from.configuration_index = oracle_.configuration_at(base).first;
    from.configuration = oracle_.configuration_at(base).second;
  }
  for (Index index = base.next(); index <= disk.log.last(); ++index) from.entries.push_back(disk.log.at(index).entry);
  from.commit_index = std::max(from.commit_index, from.applied_index);
  return from;
}

/// Some of what was being written may have reached the disk, in order, without anybody being told.
void World::crash(Node& at) {
  if (!at.core.has_value()) return;
  std::size_t kept = 0;
  if (!at.writing.empty() && random_.below(2) == 0) kept = random_.below(at.writing.size() + 1);
  for (std::size_t i = 0; i < kept; ++i) write(at, at.writing[i]);
  counters_.add(What::writes_kept_unconfirmed, kept);
  counters_.add(What::writes_lost, at.writing.size() - kept);
  note("crashes", at);
  at.core.reset();
  at.writing.clear();
  at.sync_due = at.apply_due = false;
  at.hung_until = at.paused_until = 0;
  at.writes.clear();
  at.reads.clear();
  at.received.reset();
  counters_.add(What::crashes);
}

void World::drain(Node& at) {
  while (at.core.has_value() && at.core->has_ready()) take(at);
  check(at);
}

void World::take(Node& at) {
  Ready ready = at.core->take_ready();
  if (ready.sequence != at.core->facts().taken) broken("sequences", "a gap");
  append(at, ready);
  for (raft::Message& message : ready.messages) send(at, std::move(message));
  deliver(at, ready);
  for (const raft::ReadState& answer : ready.reads) {
    const auto read = at.reads.find(answer.id);
    if (read == at.reads.end() || read->second.read_index.has_value()) broken("reads-answered-once", "");
    if (!answer.read_index.has_value()) {
      counters_.add(What::reads_refused);
      at.reads.erase(read);
      continue;
    }
    read->second.read_index = answer.read_index;
    if (*answer.read_index < read->second.at_least) broken("linearizable-read", "older than what was seen before it");
    if (*answer.read_index > std::max(oracle_.highest_commit, at.core->commit_index()))
      broken("linearizable-read", "not committed");
  }
  if (!ready.reads.empty()) answer_clients(at);
  for (const raft::LogRead& read : ready.log_reads) {
    counters_.add(What::log_reads);
    schedule(draw(tick_units), Kind::log_read, at.id.value, pack({{}, read, {}, {}}));
  }
  for (const raft::SnapshotSend& wanted : ready.snapshot_sends) {
    counters_.add(What::snapshots_wanted);
    schedule(draw(5 * tick_units), Kind::bring_snapshot, at.id.value, pack({{}, {}, wanted.peer, at.applied}));
  }
  if (ready.snapshot_offer.has_value()) {
    counters_.add(What::snapshots_offered);
    schedule(draw(3 * tick_units), Kind::install, at.id.value);
  }
  at.writing.push_back(std::move(ready));
  // One with nothing to write is durable as soon as the ones before it are.
  if (at.writing.size() == 1 && !at.writing.front().must_write()) return complete_writes(at, 1);
  if (at.sync_due) return;
  at.sync_due = true;
  schedule(1 + draw(plan_.disk_mean), Kind::sync, at.id.value);
}

void World::append(Node& at, const Ready& ready) {
  if (ready.log_restart.has_value()) {
    counters_.add(What::logs_restarted);
    at.log = ChainedLog(ready.log_restart->index, oracle_.chain(ready.log_restart->index));
  }
  if (ready.entries.empty()) return;
  const Index first = ready.entries.front().index;
  if (first > at.log.last().next() || first <= at.log.base()) broken("contiguous-log", "a hole");
  if (first <= at.log.last()) {
    if (first <= at.before.commit_index) broken("committed-never-popped", "");
    counters_.add(What::truncations);
    counters_.add(What::entries_truncated, at.log.last() - first + 1);
    for (Index index = first; index <= at.log.last(); ++index) {
      if (at.log.at(index).entry.type == raft::EntryType::configuration) counters_.add(What::changes_truncated);
    }
    at.log.truncate(first.previous());
  }
  for (const raft::Entry& entry : ready.entries) {
    if (entry.index != at.log.last().next()) broken("contiguous-log", "entries of a Ready");
    if (entry.crc != raft::record_crc(entry)) broken("record-checksum", "");
    at.log.append(entry);
    oracle_.appended(at.id, entry.index, entry.term, at.log.at(entry.index).chain);
  }
}

void World::deliver(Node& at, const Ready& ready) {
  for (const raft::Entry& entry : ready.committed) {
    if (entry.index != at.delivered.next()) broken("apply-contiguous", "not the next one");
    if (!at.log.has(entry.index) || !(at.log.at(entry.index).entry == entry)) broken("delivered-is-logged", "");
    if (entry.index > oracle_.committed_index()) {
      counters_.add(What::entries_committed);
      if (entry.type == raft::EntryType::configuration) counters_.add(What::changes_committed);
    }
    if (entry.index > at.core->stable_index()) counters_.add(What::commits_before_own_disk);
    oracle_.delivered(at.id, entry, at.log.at(entry.index).chain);
    at.delivered = entry.index;
  }
  if (ready.committed.empty() || at.apply_due) return;
  if (!plan_.slow_apply || healed_) return apply(at);
  counters_.add(What::apply_delayed);
  at.apply_due = true;
  schedule(draw(3 * tick_units), Kind::apply, at.id.value);
}

void World::apply(Node& at) {
  at.apply_due = false;
  if (at.applied >= at.delivered) return;
  at.applied = at.delivered;
  at.core->applied(at.applied);
  answer_clients(at);
}

void World::write(Node& at, const Ready& ready) {
  Disk& disk = at.disk;
  if (ready.hard_state.has_value()) {
    if (ready.hard_state->term < disk.hard_state.term) broken("term-monotone", "on disk");
    disk.hard_state = *ready.hard_state;
    oracle_.voted(at.id, disk.hard_state.term, disk.hard_state.voted_for);
  }
  if (ready.log_restart.has_value()) {
    disk.log = ChainedLog(ready.log_restart->index, oracle_.chain(ready.log_restart->index));
    disk.log_base_term = ready.log_restart->term;
  }
  if (!ready.entries.empty()) disk.log.truncate(ready.entries.front().index.previous());
  for (const raft::Entry& entry : ready.entries) disk.log.append(entry);
  if (ready.must_write()) disk.commit_index = std::max(disk.commit_index, ready.commit_index);
}

void World::complete_writes(Node& at, std::size_t count) {
  count = std::min(count, at.writing.size());
  if (count > 1) counters_.add(What::writes_grouped);
  // Those that need no write follow at once.
  while (count < at.writing.size() && !at.writing[count].must_write()) ++count;
  std::vector<Ready> done;
  for (std::size_t i = 0; i < count; ++i) {
    write(at, at.writing.front());
    done.push_back(std::move(at.writing.front()));
    at.writing.pop_front();
  }
  const bool each = random_.below(2) == 0;
  for (std::size_t i = 0; i < done.size(); ++i) {
    if (!each && i + 1 < done.size()) continue;
    const bool wrote = !done[i].entries.empty();
    at.core->persisted(done[i].sequence, wrote ? done[i].entries.back().term : Term{},
                       wrote ? done[i].entries.back().index : Index{});
  }
  for (Ready& ready : done) {
    for (raft::Message& message : ready.messages_after_sync) send(at, std::move(message));
  }
  if (at.writing.empty() || at.sync_due) return;
  at.sync_due = true;
  schedule(1 + draw(plan_.disk_mean), Kind::sync, at.id.value);
}

/// A checkpoint of what is applied and durable; then the log below it goes, but for some trailing entries.
void World::trim(Node& at) {
  if (!healed_) schedule(draw(15 * tick_units), Kind::trim, at.id.value);
  Disk& disk = at.disk;
  const Index index = std::min(at.applied, at.core->stable_index());
  if (index <= disk.checkpoint.index) return;
  // An installed snapshot is a checkpoint ahead of this log until the log begins anew.
  if (!disk.log.has(index) || disk.log.base() > disk.checkpoint.index) return;
  disk.checkpoint = snapshot_at(index);
  const std::uint64_t trailing = random_.below(20);
  if (index.value <= disk.log.base().value + trailing) return;
  const Index last_gone{index.value - trailing};
  disk.log_base_term = disk.log.at(last_gone).entry.term;
  disk.log.trim(last_gone);
  at.core->trimmed(last_gone.next());
  counters_.add(What::logs_trimmed);
}

void World::answer_log_read(Node& at, const raft::LogRead& read) {
  const ChainedLog& log = at.disk.log;
  std::vector<raft::Entry> entries;
  Term prev_term;
  if (log.has(read.first_index)) {
    const Index prev = read.first_index.previous();
    prev_term = prev == log.base() ? at.disk.log_base_term : log.at(prev).entry.term;
    std::size_t bytes = 0;
    for (Index index = read.first_index; index <= log.last(); ++index) {
      bytes += raft::record_bytes(log.at(index).entry);
      if (bytes > read.bytes_max && !entries.empty()) break;
      entries.push_back(log.at(index).entry);
    }
  }
  at.core->loaded(read.peer, read.first_index, prev_term, std::move(entries));
}

raft::SnapshotMeta World::snapshot_at(Index index) {
  const auto& [configuration_index, configuration] = oracle_.configuration_at(index);
  return {index, oracle_.committed(index).term, configuration, configuration_index, oracle_.committed(index).time};
}

void World::bring_snapshot(Node& at, const Parcel& parcel) {
  Node& to = node(parcel.peer);
  const bool reachable = to.core.has_value() && !cut_.contains({at.id.value, to.id.value});
  const Index index = random_.below(2) == 0 ? parcel.snapshot_index : at.applied;
  if (!reachable || !index || (!healed_ && chance(150))) {
    counters_.add(What::snapshots_failed);
    return at.core->snapshot_failed(parcel.peer);
  }
  counters_.add(What::snapshots_brought);
  to.received = snapshot_at(index);
  at.core->snapshot_sent(parcel.peer, *to.received);
}

void World::install(Node& at) {
  // Lost in a crash since, not newer than what is applied, or damaged on the way.
  if (!at.received.has_value() || at.received->index <= at.delivered || (!healed_ && chance(100))) {
    counters_.add(What::snapshots_refused);
    return at.core->snapshot_refused();
  }
  counters_.add(What::snapshots_installed);
  note("installs a snapshot", at);
  const raft::SnapshotMeta meta = *std::exchange(at.received, std::nullopt);
  // One rename: from here on a restart begins with it.
  at.disk.checkpoint = meta;
  at.delivered = at.applied = meta.index;
  at.core->snapshot_installed(meta);
  answer_clients(at);
}

/// What was asked here and is now applied here.
void World::answer_clients(Node& at) {
  std::erase_if(at.writes, [&](const Write& write) {
    if (write.index > at.applied) return false;
    const bool mine = oracle_.committed(write.index).term == write.term;
    counters_.add(mine ? What::writes_acknowledged : What::writes_replaced);
    if (mine) oracle_.observed = std::max(oracle_.observed, write.index);
    return true;
  });
  std::erase_if(at.reads, [&](const auto& read) {
    if (!read.second.read_index.has_value() || *read.second.read_index > at.applied) return false;
    if (at.applied < read.second.at_least) broken("linearizable-read", "the state is older than what was seen");
    counters_.add(What::reads_answered);
    oracle_.observed = std::max(oracle_.observed, at.applied);
    return true;
  });
}

}  // namespace flotilla::sim
