#include "raft/configuration.hpp"

#include <algorithm>

#include "base/assert.hpp"
#include "base/codec.hpp"

namespace flotilla::raft {
namespace {

constexpr std::uint32_t format_version = 1;

enum class Kind : std::uint8_t { learner = 0, voter = 1, joining = 2 };

Kind kind_of(const Member& member) {
  if (member.voter) return Kind::voter;
  return member.joining ? Kind::joining : Kind::learner;
}

const Member* find_in(const std::vector<Member>& group, NodeId id) noexcept {
  const auto at = std::find_if(group.begin(), group.end(), [id](const Member& member) { return member.id == id; });
  return at == group.end() ? nullptr : &*at;
}

bool sorted_and_distinct(const std::vector<Member>& group) {
  const auto not_above = [](const Member& left, const Member& right) { return left.id >= right.id; };
  return std::adjacent_find(group.begin(), group.end(), not_above) == group.end();
}

void put_group(Encoder& out, const std::vector<Member>& group) {
  FLOTILLA_ASSERT(sorted_and_distinct(group));
  out.u32(static_cast<std::uint32_t>(group.size()));
  for (const Member& member : group) {
    out.u64(member.id.value).u8(static_cast<std::uint8_t>(kind_of(member))).bytes(member.address);
  }
}

bool get_group(Decoder& in, std::vector<Member>& group) {
  const std::uint32_t count = in.u32();
  if (!in.ok() || count > members_max) return false;
  for (std::uint32_t i = 0; i < count; ++i) {
    Member member;
    member.id = NodeId{in.u64()};
    const std::uint8_t kind = in.u8();
    member.address = Address(in.bytes());
    if (!in.ok() || !member.id || kind > static_cast<std::uint8_t>(Kind::joining)) return false;
    member.voter = Kind{kind} == Kind::voter;
    member.joining = Kind{kind} == Kind::joining;
    group.push_back(std::move(member));
  }
  return sorted_and_distinct(group);
}

}  // namespace

const Member* Configuration::find(NodeId id) const noexcept {
  return find_in(members, id);
}

bool Configuration::is_voter(NodeId id) const noexcept {
  const Member* member = find_in(members, id);
  return (member != nullptr && member->voter) || find_in(outgoing, id) != nullptr;
}

bool Configuration::contains(NodeId id) const noexcept {
  return find_in(members, id) != nullptr || find_in(outgoing, id) != nullptr;
}

std::vector<NodeId> Configuration::ids() const {
  std::vector<NodeId> all;
  all.reserve(members.size() + outgoing.size());
  for (const Member& member : members) all.push_back(member.id);
  for (const Member& member : outgoing) all.push_back(member.id);
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

bool valid(const Configuration& configuration) noexcept {
  const auto is_voter = [](const Member& member) { return member.voter; };
  const auto is_both = [](const Member& member) { return member.voter && member.joining; };
  const auto has_no_id = [](const Member& member) { return !member.id; };
  const auto& members = configuration.members;
  const auto& outgoing = configuration.outgoing;
  if (members.size() > members_max || outgoing.size() > members_max) return false;
  if (!sorted_and_distinct(members) || !sorted_and_distinct(outgoing)) return false;
  if (std::any_of(members.begin(), members.end(), has_no_id)) return false;
  if (std::any_of(outgoing.begin(), outgoing.end(), has_no_id)) return false;
  if (std::none_of(members.begin(), members.end(), is_voter)) return false;
  if (std::any_of(members.begin(), members.end(), is_both)) return false;
  return std::all_of(outgoing.begin(), outgoing.end(), is_voter);
}

std::string encode(const Configuration& configuration) {
  std::string bytes;
  Encoder out(bytes);
  out.u32(format_version);
  put_group(out, configuration.members);
  put_group(out, configuration.outgoing);
  return bytes;
}

std::optional<Configuration> decode_configuration(std::string_view bytes) {
  Decoder in(bytes);
  Configuration configuration;
  if (in.u32() != format_version) return std::nullopt;
  if (!get_group(in, configuration.members) || !get_group(in, configuration.outgoing)) return std::nullopt;
  const auto is_learner = [](const Member& member) { return !member.voter; };
  const auto& outgoing = configuration.outgoing;
  if (!in.done() || std::any_of(outgoing.begin(), outgoing.end(), is_learner)) return std::nullopt;
  return configuration;
}

}  // namespace flotilla::raft
