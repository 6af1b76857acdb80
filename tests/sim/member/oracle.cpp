#include "oracle.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace flotilla::sim {
namespace {

constexpr std::uint64_t looks_per_full_check = 256;

/// Counted here once more, and not as the code under test does it.
template <class F>
bool is_majority(const std::vector<Member>& group, F holds) {
  int balance = 0;
  for (const Member& member : group) {
    if (member.voter) balance += holds(member.id) ? 1 : -1;
  }
  return balance > 0;
}

/// While it is joint, of both groups (thesis 4.3).
template <class F>
bool is_quorum(const raft::Configuration& configuration, F holds) {
  return is_majority(configuration.members, holds) &&
         (!configuration.joint() || is_majority(configuration.outgoing, holds));
}

/// Voters that are in one of two groups alone.
std::ptrdiff_t voters_changed(const std::vector<Member>& one, const std::vector<Member>& other) {
  const auto missing_in = [](const std::vector<Member>& group) {
    return [&group](const Member& member) {
      return member.voter && std::none_of(group.begin(), group.end(),
                                          [&](const Member& line) { return line.voter && line.id == member.id; });
    };
  };
  return std::count_if(one.begin(), one.end(), missing_in(other)) +
         std::count_if(other.begin(), other.end(), missing_in(one));
}

std::string name_of(NodeId node) {
  return fmt::format("#{:04x}", node.value >> 48);
}

}  // namespace

void Oracle::add(NodeId node, const Disk& disk) {
  disks_[node] = &disk;
  if (!committed_.empty()) return;
  // The founder comes first. It begins with its configuration, which it alone commits: durable before it runs.
  if (!holds(node, Index{1}, Term{1})) broken(fmt::format("{} founded nothing", name_of(node)));
  committed_.push_back({Term{1}, Term{1}});
}

std::optional<Term> Oracle::durable_term(NodeId node, Index index) const {
  const auto at = disks_.find(node);
  return at != disks_.end() ? at->second->durable_term(index) : std::nullopt;
}

bool Oracle::holds(NodeId node, Index index, Term term) const {
  return durable_term(node, index) == term;
}

// ---- what leaves a member ----

void Oracle::said(const raft::Message& message, const raft::Core* to) {
  if (const auto* request = std::get_if<raft::VoteRequest>(&message.body)) {
    if (!request->pre) said_vote_request(message, *request);
  } else if (const auto* vote = std::get_if<raft::VoteReply>(&message.body)) {
    if (!vote->pre && vote->granted) said_vote(message);
  } else if (const auto* append = std::get_if<raft::AppendRequest>(&message.body)) {
    said_append(*append);
  } else if (const auto* reply = std::get_if<raft::AppendReply>(&message.body)) {
    if (reply->accepted) said_accepted(message, reply->match_index, to);
  } else if (const auto* installed = std::get_if<raft::SnapshotReply>(&message.body)) {
    if (installed->accepted) said_accepted(message, installed->match_index, to);
  }
}

/// What it was asked in that term it may have replaced since: the answer is to one who cannot use it any more.
bool Oracle::is_old(const raft::Message& message) const {
  const auto at = terms_.find(message.from);
  return at != terms_.end() && at->second > message.term;
}

/// one-vote-per-term, over all runs of a member.
void Oracle::voted(NodeId node, Term term, NodeId vote) {
  const auto [at, first] = votes_.emplace(std::pair(node, term), vote);
  if (first) return check_vote_durable(node, term, vote);
  if (at->second != vote) {
    broken(fmt::format("{} voted in term {} for {} and for {}", name_of(node), term.value, name_of(at->second),
                       name_of(vote)));
  }
}

void Oracle::check_vote_durable(NodeId node, Term term, NodeId vote) {
  const auto at = disks_.find(node);
  if (at == disks_.end()) return broken(fmt::format("{} votes, and nobody knows it", name_of(node)));
  const auto disk = at->second->read();
  if (!disk) return broken(fmt::format("the disk of {} is unreadable: {}", name_of(node), disk.error().message()));
  const raft::HardState& kept = disk->hard_state;
  if (kept.term > term || (kept.term == term && kept.voted_for == vote)) return;
  broken(fmt::format("{} voted for {} in term {}, and its disk has term {} and vote {}", name_of(node), name_of(vote),
                     term.value, kept.term.value, name_of(kept.voted_for)));
}

/// A candidate votes for itself, and claims only what it cannot lose.
void Oracle::said_vote_request(const raft::Message& message, const raft::VoteRequest& request) {
  candidates_[{message.from, message.term}] = {request.last_index, request.last_term};
  voted(message.from, message.term, message.from);
  const auto at = disks_.find(message.from);
  if (is_old(message) || at == disks_.end()) return;
  if (at->second->durable_end() < std::pair(request.last_term, request.last_index)) {
    broken(fmt::format("{} stands in term {} with entries up to {} that are not durable", name_of(message.from),
                       message.term.value, request.last_index.value));
  }
}

/// No vote for a candidate whose log is behind the voter's.
void Oracle::said_vote(const raft::Message& message) {
  voted(message.from, message.term, message.to);
  const auto asked = candidates_.find({message.to, message.term});
  if (asked == candidates_.end()) {
    return broken(fmt::format("{} voted for {}, which did not ask", name_of(message.from), name_of(message.to)));
  }
  const auto disk = disks_.find(message.from);
  if (disk == disks_.end()) return;
  // What the voter took from the winner of this term since it granted the vote says nothing about the vote.
  const auto [last_term, last_index] = disk->second->durable_end();
  if (last_term >= message.term) return;
  if (std::pair(last_term, last_index) > std::pair(asked->second.last_term, asked->second.last_index)) {
    broken(fmt::format("{} with a log up to {} of term {} voted in term {} for {} with one up to {} of term {}",
                       name_of(message.from), last_index.value, last_term.value, message.term.value,
                       name_of(message.to), asked->second.last_index.value, asked->second.last_term.value));
  }
}

/// log-matching: equal index and term mean the same entry after the same entry, and so the same log.
void Oracle::check_entry(Index index, Term term, std::uint32_t crc, Term prev_term) {
  const auto [at, first] = entries_.emplace(std::pair(index, term), std::pair(crc, prev_term));
  if (first || at->second == std::pair(crc, prev_term)) return;
  broken(fmt::format("there are two logs with an entry {} of term {}", index.value, term.value));
}

void Oracle::said_append(const raft::AppendRequest& request) {
  Term prev = request.prev_term;
  for (const raft::Entry& entry : request.entries) {
    check_entry(entry.index, entry.term, entry.crc, prev);
    prev = entry.term;
  }
}

/// acked-is-durable, and match-is-really-matching.
void Oracle::said_accepted(const raft::Message& message, Index match_index, const raft::Core* leader) {
  const auto disk = disks_.find(message.from);
  if (is_old(message) || disk == disks_.end()) return;
  const auto [last_term, last_index] = disk->second->durable_end();
  if (last_index < match_index) {
    return broken(fmt::format("{} acknowledged up to {} in term {}, and its disk ends at {} of term {}",
                              name_of(message.from), match_index.value, message.term.value, last_index.value,
                              last_term.value));
  }
  std::optional<Term> here = disk->second->durable_term(match_index);
  if (!here && match_index <= committed()) here = match_index ? committed_term(match_index) : Term{};
  if (!here) {
    return broken(fmt::format("{} acknowledged {}, which its log does not have and nobody committed",
                              name_of(message.from), match_index.value));
  }
  if (leader == nullptr || leader->role() != Role::leader || leader->term() != message.term) return;
  const std::optional<Term> there = leader->term_at(match_index);
  if (there && *there != *here) {
    broken(fmt::format("{} acknowledged {} with term {}, and the leader has term {} there", name_of(message.from),
                       match_index.value, here->value, there->value));
  }
}

// ---- what a member is ----

void Oracle::look(const raft::Core& core) {
  const NodeId id = core.id();
  View& view = views_[id];
  Term& newest = terms_[id];
  if (core.term() < newest) {
    broken(fmt::format("the term of {} went back from {} to {}", name_of(id), newest.value, core.term().value));
  }
  newest = core.term();
  const auto vote = votes_.find({id, newest});
  if (vote != votes_.end() && core.facts().voted_for != vote->second) {
    broken(fmt::format("{} does not know its vote in term {} any more", name_of(id), newest.value));
  }
  if (view.looks == 0 || view.configuration_index != core.configuration_index()) {
    if (view.looks > 0 && core.role() == Role::leader) check_change(core, view);
    configurations_.insert(core.configuration_index());
  }
  if (core.last_index() < view.last_index || core.stable_index() < view.stable_index) ++truncations_;
  view.last_index = core.last_index();
  view.stable_index = core.stable_index();
  if (core.role() == Role::leader) check_leader(core);
  if (core.commit_index() < view.commit_index) broken(fmt::format("the commit index of {} went back", name_of(id)));
  if (core.commit_index() > core.last_index()) broken(fmt::format("{} committed what it lacks", name_of(id)));
  if (core.commit_index() > view.commit_index) check_commit(core, view);
  view.role = core.role();
  view.term = core.term();
  view.commit_index = core.commit_index();
  view.configuration_index = core.configuration_index();
  view.configuration = core.configuration();
  if (++view.looks % looks_per_full_check == 0) {
    if (const char* sentence = core.broken()) broken(fmt::format("{}: {}", name_of(id), sentence));
  }
}

/// one-leader-per-term, election quorum, leader-completeness.
void Oracle::check_leader(const raft::Core& core) {
  const auto [at, first] = leaders_.emplace(core.term(), core.id());
  if (at->second != core.id()) return broken(fmt::format("term {} has two leaders", core.term().value));
  if (!first) return;
  const raft::Configuration& configuration = core.configuration();
  voted(core.id(), core.term(), core.id());  // where nobody else votes, nobody else was asked
  const auto voted_for_it = [&](NodeId node) {
    const auto vote = votes_.find({node, core.term()});
    return vote != votes_.end() && vote->second == core.id();
  };
  if (!is_quorum(configuration, voted_for_it)) {
    broken(fmt::format("{} leads term {} without the votes", name_of(core.id()), core.term().value));
  }
  for (std::size_t i = 0; i < committed_.size() && committed_[i].by < core.term(); ++i) {
    const Index index{i + 1};
    const std::optional<Term> term = core.term_at(index);
    const bool lacks = index > core.last_index() || (term && *term != committed_[i].term);
    if (!lacks) continue;
    return broken(fmt::format("{} leads term {} without entry {} of term {}, which term {} committed",
                              name_of(core.id()), core.term().value, index.value, committed_[i].term.value,
                              committed_[i].by.value));
  }
}

/// A leader changes the members: by one voter, or jointly; after an entry of its own term is committed, and one change
/// at a time.
void Oracle::check_change(const raft::Core& core, const View& view) {
  if (core.term_at(core.configuration_index()) != core.term()) return;
  if (core.term_at(core.commit_index()) != core.term()) {
    broken(fmt::format("{} changes the members in term {}, in which it has committed nothing", name_of(core.id()),
                       core.term().value));
  }
  const raft::Configuration& before = view.configuration;
  const raft::Configuration& after = core.configuration();
  if (!before.joint() && !after.joint() && voters_changed(before.members, after.members) > 1) {
    broken(fmt::format("{} changes several voters at once", name_of(core.id())));
  }
  if (view.configuration_index > core.commit_index()) {
    broken(fmt::format("{} changes the members at {} while the change at {} is not committed", name_of(core.id()),
                       core.configuration_index().value, view.configuration_index.value));
  }
}

bool Oracle::on_majority(Index index, Term term, const raft::Configuration& configuration) const {
  return is_quorum(configuration, [&](NodeId node) { return holds(node, index, term); });
}

/// Own-term rule: who commits first leads, in the term of what it commits. An event may have begun or ended that. The
/// only voter need not: a start finds all of its log committed, as nobody else can ever lead with another.
bool Oracle::may_commit(const raft::Core& core, const View& view, Term term) const {
  if (view.looks == 0 && core.configuration().ids() == std::vector<NodeId>{core.id()}) return true;
  return (core.role() == Role::leader && core.term() == term) || (view.role == Role::leader && view.term == term);
}

/// Commit quorum, of the configuration that was in force when that was decided. An event that changed the members may
/// have committed before; but nothing at or above an entry that it appended later.
bool Oracle::has_quorum(const raft::Core& core, const View& view, Index index, Term term) const {
  if (on_majority(index, term, core.configuration())) return true;
  const Index now = core.configuration_index();
  return (index < now || now < view.configuration_index) && on_majority(index, term, view.configuration);
}

/// state-machine-safety, and for what is committed for the first time: own-term rule and commit quorum.
void Oracle::check_commit(const raft::Core& core, const View& view) {
  const Index reached = core.commit_index();
  const Term by = core.term_at(reached).value_or(Term{});
  if (reached > committed() && !may_commit(core, view, by)) {
    broken(fmt::format("{} committed {} of term {} in term {}", name_of(core.id()), reached.value, by.value,
                       core.term().value));
  } else if (reached > committed() && !has_quorum(core, view, reached, by)) {
    broken(fmt::format("{} committed {} in term {}, which no majority has on disk", name_of(core.id()), reached.value,
                       core.term().value));
  }
  for (Index index = view.commit_index.next(); index <= reached; ++index) {
    std::optional<Term> term = core.term_at(index);
    if (index > committed()) {
      // What the only voter finds committed at its start need not be in memory.
      if (!term) term = durable_term(core.id(), index);
      if (!term) return broken(fmt::format("{} committed {}, which it does not have", name_of(core.id()), index.value));
      committed_.push_back({*term, by});
    } else if (const Term known = committed_term(index); term && *term != known) {
      broken(fmt::format("{} committed {} of term {}, and others one of term {}", name_of(core.id()), index.value,
                         term->value, known.value));
    }
  }
}

void Oracle::set_back(NodeId node, const DiskLog& disk) {
  terms_[node] = disk.hard_state.term;
  std::erase_if(votes_, [&](const auto& vote) {
    return vote.first.first == node && vote.first.second >= disk.hard_state.term &&
           disk.hard_state != raft::HardState{vote.first.second, vote.second};
  });
}

/// Its newest vote, and an entry for each that was committed here.
void Oracle::ended(NodeId node, const DiskLog& disk) {
  terms_[node] = disk.hard_state.term;  // one that only refusals spoke of may be lost
  views_.erase(node);
  const auto after = votes_.upper_bound({node, Term{~std::uint64_t{0}}});
  if (after != votes_.begin() && std::prev(after)->first.first == node) {
    const auto& [key, vote] = *std::prev(after);
    const bool kept = disk.hard_state.term > key.second || disk.hard_state == raft::HardState{key.second, vote};
    if (!kept) broken(fmt::format("{} forgot its vote in term {}", name_of(node), key.second.value));
  }
  Term prev;
  Index index = disk.first_index;
  for (const DiskLog::Stamp& stamp : disk.entries) {
    if (index > disk.first_index || index == Index{1}) check_entry(index, stamp.term, stamp.crc, prev);
    if (index <= std::min(disk.commit_index, committed()) && committed_term(index) != stamp.term) {
      broken(fmt::format("{} holds another entry {} than the one that was committed", name_of(node), index.value));
    }
    prev = stamp.term;
    ++index;
  }
}

}  // namespace flotilla::sim
