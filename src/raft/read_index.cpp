// Linearizable reads without writing to the log (thesis 6.4).
#include <utility>

#include "base/assert.hpp"
#include "raft/state.hpp"

namespace flotilla::raft {

void Core::State::request_read(std::uint64_t id) {
  if (leading() != nullptr) return begin_read(options.id, id);
  if (!leader_id) {
    answered_reads.push_back(ReadState{id, std::nullopt});
    return;
  }
  forwarded_reads[id] = ForwardedRead{leader_id, 0};
  send(leader_id, ReadIndexRequest{id});
}

void Core::State::begin_read(NodeId from, std::uint64_t id) {
  FLOTILLA_ASSERT(leading() != nullptr);
  const PendingRead read{from, id, Index{}, 0};
  if (leading()->reads.size() >= pending_reads_max) return answer_read(read, false);
  leading()->reads.push_back(read);
}

/// Until an entry of its own term is committed, a leader does not know what is committed: reads are held.
bool Core::State::reads_wait_for_round() const {
  return own_term_committed() && !leading()->reads.empty() && leading()->reads.back().round == 0;
}

/// One round for all reads that came since the last: its heartbeats leave after every one of them was asked.
void Core::State::start_read_round() {
  FLOTILLA_ASSERT(reads_wait_for_round());
  Leader& leader = *leading();
  ++leader.read_round;
  for (auto read = leader.reads.rbegin(); read != leader.reads.rend() && read->round == 0; ++read) {
    read->round = leader.read_round;
    read->read_index = commit_index;
  }
  broadcast_heartbeat();
  confirm_reads();
}

void Core::State::confirm_reads() {
  FLOTILLA_ASSERT(leading() != nullptr);
  Leader& leader = *leading();
  if (leader.reads.empty() || leader.reads.front().round == 0) return;
  const auto round_of = [this, &leader](NodeId id) {
    if (id == options.id) return leader.read_round;
    const Progress* member = peer(id);
    FLOTILLA_ASSERT(member != nullptr);
    return member->rolled_back ? 0 : member->read_round;
  };
  const std::uint64_t confirmed = quorum_value(configuration(), round_of);
  FLOTILLA_ASSERT(confirmed <= leader.read_round);
  while (!leader.reads.empty() && leader.reads.front().round != 0 && leader.reads.front().round <= confirmed) {
    answer_read(leader.reads.front(), true);
    leader.reads.pop_front();
  }
}

void Core::State::answer_read(const PendingRead& read, bool confirmed) {
  FLOTILLA_ASSERT(!confirmed || read.read_index);
  if (read.from == options.id) {
    answered_reads.push_back(ReadState{read.id, confirmed ? std::optional(read.read_index) : std::nullopt});
  } else {
    send(read.from, ReadIndexReply{read.id, confirmed, read.read_index});
  }
}

/// Whoever asked another leader than `still_leading` asks again: none of them waits for an answer that never comes.
void Core::State::fail_forwarded_reads(NodeId still_leading) {
  std::erase_if(forwarded_reads, [&](const auto& read) {
    if (read.second.leader == still_leading) return false;
    answered_reads.push_back(ReadState{read.first, std::nullopt});
    return true;
  });
}

void Core::State::tick_reads() {
  const unsigned patience = 2 * options.election_ticks;
  for (auto& [id, read] : forwarded_reads) ++read.ticks;
  std::erase_if(forwarded_reads, [&](const auto& read) {
    if (read.second.ticks < patience) return false;
    answered_reads.push_back(ReadState{read.first, std::nullopt});
    return true;
  });
}

void Core::State::handle(const Message& envelope, const ReadIndexRequest& request) {
  if (leading() == nullptr || !configuration().contains(envelope.from)) {
    send(envelope.from, ReadIndexReply{request.id, false, Index{}});
    return;
  }
  begin_read(envelope.from, request.id);
}

void Core::State::handle(const Message& envelope, const ReadIndexReply& reply) {
  const auto read = forwarded_reads.find(reply.id);
  if (read == forwarded_reads.end() || read->second.leader != envelope.from) return ignore();
  if (reply.accepted && !reply.read_index) return ignore();
  answered_reads.push_back(ReadState{reply.id, reply.accepted ? std::optional(reply.read_index) : std::nullopt});
  forwarded_reads.erase(read);
}

}  // namespace flotilla::raft
