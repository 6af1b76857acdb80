#include "node/change.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/codec.hpp"
#include "node/command_sets.hpp"

namespace flotilla::node {
namespace {

using Kind = Change::Kind;
using Verdict = ChangeAnswer::Verdict;

constexpr std::size_t address_bytes_max = 512;  // as in a Hello

const Member* find(const std::vector<Member>& members, NodeId id) {
  const auto at = std::find_if(members.begin(), members.end(), [id](const Member& line) { return line.id == id; });
  return at == members.end() ? nullptr : &*at;
}

void put(std::vector<Member>& members, Member member) {
  const auto at = std::lower_bound(members.begin(), members.end(), member.id,
                                   [](const Member& line, NodeId id) { return line.id < id; });
  if (at != members.end() && at->id == member.id) {
    *at = std::move(member);
  } else {
    members.insert(at, std::move(member));
  }
}

void erase(std::vector<Member>& members, NodeId id) {
  std::erase_if(members, [id](const Member& line) { return line.id == id; });
}

ChangeAnswer later(std::string why) {
  return {Verdict::later, {}, Error(Errc::overloaded, std::move(why))};
}

ChangeAnswer refused(std::string why) {
  return {Verdict::refused, {}, Error(Errc::invalid_argument, std::move(why))};
}

std::string name_of(NodeId id) {
  return fmt::format("node {:016x}", id.value);
}

/// The members that the change leads to. Requires: those it needs are there (see refuse()).
std::vector<Member> goal_of(const Change& change, std::vector<Member> members) {
  switch (change.kind) {
    case Kind::join: {
      Member self = change.members.front();
      if (const Member* line = find(members, self.id)) {
        self.voter = line->voter;
        self.joining = line->joining;
      }
      put(members, std::move(self));
      break;
    }
    case Kind::add_learner: put(members, change.members.front()); break;
    case Kind::promote:
      if (const Member* line = find(members, change.id)) put(members, {line->id, line->address, true});
      break;
    case Kind::remove: erase(members, change.id); break;
    case Kind::replace:
      erase(members, change.id);
      put(members, change.members.front());
      break;
    case Kind::configure: return change.members;
    case Kind::transfer: break;
  }
  return members;
}

/// Whether a cluster may be governed by `goal` at all.
std::optional<std::string> refuse_goal(const std::vector<Member>& goal) {
  if (goal.size() > raft::members_max) return fmt::format("a cluster has at most {} members", raft::members_max);
  if (std::none_of(goal.begin(), goal.end(), [](const Member& line) { return line.voter; })) {
    return "a cluster needs a voter; the last one cannot go";
  }
  for (std::size_t i = 0; i < goal.size(); ++i) {
    const Member& line = goal[i];
    if (!line.id) return "0 is no node id";
    if (i > 0 && goal[i - 1].id == line.id) return name_of(line.id) + " is named twice";
    if (line.address.empty() && goal.size() > 1) return name_of(line.id) + " has no address";
    const auto clash = std::find_if(goal.begin(), goal.begin() + static_cast<std::ptrdiff_t>(i),
                                    [&](const Member& other) { return other.address == line.address; });
    if (clash->id != line.id) return fmt::format("{} is the address of {} already", line.address, name_of(clash->id));
  }
  return std::nullopt;
}

std::optional<std::string> refuse(const Change& change, const std::vector<Member>& members, const state::Store& store) {
  for (const Member& line : change.members) {
    if (store.was_removed(line.id)) {
      return name_of(line.id) + " was removed before, and an id is never used again: start it with an empty directory";
    }
  }
  if (change.kind == Kind::promote && find(members, change.id) == nullptr) return name_of(change.id) + " is no member";
  if (change.kind == Kind::replace && find(members, change.id) == nullptr) {
    return name_of(change.id) + ", which is to be replaced, is no member";
  }
  if (change.kind == Kind::replace && change.id == change.members.front().id) return "a node cannot replace itself";
  if (change.kind == Kind::add_learner) {
    const Member* line = find(members, change.members.front().id);
    if (line != nullptr && line->voter) return name_of(line->id) + " is a voter; change_members() makes it a learner";
  }
  return refuse_goal(goal_of(change, members));
}

std::string how_far_behind(const raft::Core& core, NodeId id) {
  const raft::Progress* progress = core.progress(id);
  const std::uint64_t behind = core.commit_index() - std::min(core.commit_index(), core.match_index(id));
  return fmt::format("{} has not caught up: {} entries behind{}", name_of(id), behind,
                     progress != nullptr && progress->rolled_back ? ", and its disk was set back" : "");
}

/// A voter that holds nothing yet would cost the cluster its fault tolerance, one that lacks a command could not apply
/// it; so it is a learner first, and all come and go in one change once the last has caught up. Empty: nothing left to
/// prepare.
struct Preparation {
  std::vector<Member> members;
  std::string waits_for;
};
Preparation prepare(const std::vector<Member>& goal, const raft::Core& core, const state::Nodes& nodes) {
  Preparation preparation{core.configuration().members, {}};
  for (const Member& line : goal) {
    const Member* now = find(preparation.members, line.id);
    if (!line.voter || (now != nullptr && now->voter)) continue;
    if (!core.caught_up(line.id)) {
      preparation.waits_for = how_far_behind(core, line.id);
    } else if (auto lacks = lacks_commands(line.id, core.configuration(), nodes)) {
      preparation.waits_for = std::move(*lacks);
    }
    const bool joining = now != nullptr && now->joining;
    put(preparation.members, {line.id, line.address, false, joining});
  }
  return preparation;
}

ChangeAnswer propose(const LeaderView& view, std::vector<Member> members) {
  auto position = view.core.propose_configuration(raft::Configuration{std::move(members), {}}, view.time);
  if (position) return {Verdict::appended, *position, Error(Errc::overloaded, "it is not on a majority yet")};
  if (position.error() == Errc::invalid_argument) return refused(position.error().message());
  return later(position.error().message());
}

bool heard_of(const raft::Core& core, const Member& member, unsigned patience_ticks) {
  const raft::Progress* progress = core.progress(member.id);
  return progress != nullptr && !progress->rolled_back && progress->silent_ticks < patience_ticks;
}

/// Who has most of the log can take over soonest.
ChangeAnswer hand_over(const Change& change, const LeaderView& view) {
  raft::Core& core = view.core;
  if (change.to ? core.id() == change.to : core.id() != change.id) return {Verdict::done, {}, Error(Errc::overloaded)};
  NodeId best;
  bool others = false;
  for (const Member& line : core.configuration().members) {
    if (!line.voter || line.id == core.id() || (change.to && line.id != change.to)) continue;
    others = true;
    if (!heard_of(core, line, view.patience_ticks)) continue;
    if (!best || core.match_index(line.id) > core.match_index(best)) best = line.id;
  }
  if (!others) return refused(change.to ? name_of(change.to) + " is no voter" : "there is no other voter");
  if (!best) return later("no voter that could take over was heard from lately");
  if (auto ordered = core.transfer_leadership(best); !ordered) return later(ordered.error().message());
  return {Verdict::begun, {}, Error(Errc::overloaded, name_of(best) + " has not taken over yet")};
}

}  // namespace

Change Change::join(Member member) {
  return {Kind::join, {}, {}, {std::move(member)}};
}
Change Change::add_learner(NodeId id, Address address) {
  return {Kind::add_learner, {}, {}, {{id, std::move(address), false}}};
}
Change Change::promote(NodeId id) {
  return {Kind::promote, id, {}, {}};
}
Change Change::remove(NodeId id) {
  return {Kind::remove, id, {}, {}};
}
Change Change::replace(NodeId old, Member replacement) {
  replacement.joining = false;
  return {Kind::replace, old, {}, {std::move(replacement)}};
}
Change Change::configure(std::vector<Member> members) {
  for (Member& line : members) line.joining = false;
  std::stable_sort(members.begin(), members.end(),
                   [](const Member& left, const Member& right) { return left.id < right.id; });
  return {Kind::configure, {}, {}, std::move(members)};
}
Change Change::transfer(std::optional<NodeId> to) {
  return {Kind::transfer, {}, to.value_or(NodeId{}), {}};
}

std::optional<Error> refuse_unsent(const Change& change) {
  if (change.members.size() > raft::members_max) {
    return Error(Errc::invalid_argument, fmt::format("a cluster has at most {} members", raft::members_max));
  }
  for (const Member& line : change.members) {
    if (line.address.size() > address_bytes_max) {
      return Error(Errc::invalid_argument, name_of(line.id) + " has an address that is too long");
    }
  }
  return std::nullopt;
}

std::string encode(const Change& change) {
  std::string bytes;
  Encoder out(bytes);
  out.u8(static_cast<std::uint8_t>(change.kind)).u64(change.id.value).u64(change.to.value);
  out.u32(static_cast<std::uint32_t>(change.members.size()));
  for (const Member& line : change.members) out.u64(line.id.value).u8(line.voter ? 1 : 0).bytes(line.address);
  return bytes;
}

std::optional<Change> decode_change(std::string_view bytes) {
  Decoder in(bytes);
  Change change;
  const std::uint8_t kind = in.u8();
  change.kind = Kind{kind};
  change.id = NodeId{in.u64()};
  change.to = NodeId{in.u64()};
  const std::uint32_t count = in.u32();
  if (kind == 0 || kind > static_cast<std::uint8_t>(Kind::transfer) || count > raft::members_max) return std::nullopt;
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
    Member line;
    line.id = NodeId{in.u64()};
    const std::uint8_t voter = in.u8();
    line.voter = voter == 1;
    line.address = Address(in.bytes());
    if (voter > 1) return std::nullopt;
    change.members.push_back(std::move(line));
  }
  if (refuse_unsent(change)) return std::nullopt;
  const bool adds_one = change.kind == Kind::add_learner || change.kind == Kind::replace;
  if (!in.done() || (adds_one && count != 1)) return std::nullopt;
  // Sorted, and learners learners, whatever was sent.
  if (change.kind == Kind::configure) return Change::configure(std::move(change.members));
  if (change.kind == Kind::add_learner) change.members.front().voter = false;
  return change;
}

bool is_done(const Change& change, const std::vector<Member>& members) {
  const auto is_there = [&](NodeId id) { return find(members, id) != nullptr; };
  if (change.kind == Kind::promote && !is_there(change.id)) return false;
  if (change.kind == Kind::replace && is_there(change.id)) return false;
  return goal_of(change, members) == members;
}

ChangeAnswer carry_out(const Change& change, const LeaderView& view) {
  raft::Core& core = view.core;
  if (core.role() != Role::leader) return later("the member that was asked does not lead");
  if (change.kind == Kind::transfer) return hand_over(change, view);
  const raft::Configuration& now = core.configuration();
  // Removals take effect for good when they are applied; before that it is not known who was removed.
  if (now.joint() || core.configuration_index() > std::min(core.commit_index(), view.applied_index)) {
    return later("another change of members is under way");
  }
  const Member* self = now.find(core.id());
  if (self != nullptr && self->address.empty() && !view.own_address.empty()) {
    return later("the leader's own address is not recorded yet");  // see upkeep()
  }
  if (is_done(change, now.members)) return {Verdict::done, {}, Error(Errc::overloaded)};
  if (auto reason = refuse(change, now.members, view.store)) return refused(std::move(*reason));
  std::vector<Member> goal = goal_of(change, now.members);
  Preparation preparation = prepare(goal, core, *view.store.nodes());
  if (preparation.waits_for.empty()) return propose(view, std::move(goal));
  if (preparation.members == now.members) return later(std::move(preparation.waits_for));
  ChangeAnswer answer = propose(view, std::move(preparation.members));
  if (answer.verdict != Verdict::appended) return answer;
  return {Verdict::begun, {}, Error(Errc::overloaded, std::move(preparation.waits_for))};
}

std::optional<raft::Configuration> upkeep(const raft::Core& core, const state::Store& store,
                                          const Address& own_address) {
  const raft::Configuration& now = core.configuration();
  if (core.role() != Role::leader || now.joint()) return std::nullopt;
  const auto with = [&](Member line) {
    raft::Configuration wanted = now;
    put(wanted.members, std::move(line));
    return wanted;
  };
  const Member* self = now.find(core.id());
  if (self != nullptr && !own_address.empty() && self->address != own_address) {
    raft::Configuration wanted = with({self->id, own_address, self->voter, self->joining});
    if (!refuse_goal(wanted.members)) return wanted;
  }
  for (const Member& line : now.members) {
    if (!line.joining || !core.caught_up(line.id)) continue;
    if (!lacks_commands(line.id, now, *store.nodes())) return with({line.id, line.address, true});
  }
  return std::nullopt;
}

}  // namespace flotilla::node
