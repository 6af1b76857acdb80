#include "raft/configuration.hpp"

#include "base/codec.hpp"
#include "raft/cluster.hpp"

using namespace flotilla;
using namespace flotilla::raft;
using namespace flotilla::raft::testing;

namespace {

Configuration joint() {
  Configuration configuration;
  configuration.members = {{node(1), "a:1", true}, {node(2), "b:2", false}, {node(5), "", true}};
  configuration.outgoing = {voter(1), voter(3)};
  return configuration;
}

}  // namespace

TEST_SUITE_BEGIN("raft.configuration");

TEST_CASE("a configuration comes back from its bytes") {
  CHECK(decode_configuration(encode(joint())) == joint());
  CHECK(decode_configuration(encode(Configuration{})) == Configuration{});
}

TEST_CASE("its bytes are pinned") {
  std::string expected;
  Encoder(expected).u32(1).u32(1).u64(9).u8(1).bytes("h:1").u32(0);
  CHECK(encode(Configuration{{{node(9), "h:1", true}}, {}}) == expected);
}

TEST_CASE("voters, members and ids are those of either group") {
  const Configuration configuration = joint();
  CHECK(configuration.joint());
  CHECK(configuration.is_voter(node(1)));
  CHECK_FALSE(configuration.is_voter(node(2)));
  CHECK(configuration.is_voter(node(3)));
  CHECK(configuration.find(node(3)) == nullptr);
  CHECK(configuration.contains(node(3)));
  CHECK_FALSE(configuration.contains(node(4)));
  CHECK(configuration.ids() == std::vector{node(1), node(2), node(3), node(5)});
}

TEST_CASE("a cut at any byte, or a byte too many, is refused") {
  const std::string bytes = encode(joint());
  for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
    CAPTURE(cut);
    CHECK_FALSE(decode_configuration(bytes.substr(0, cut)).has_value());
  }
  CHECK_FALSE(decode_configuration(bytes + '\0').has_value());
}

TEST_CASE("what no encoder writes is refused") {
  const auto group = [](std::initializer_list<std::pair<std::uint64_t, std::uint8_t>> members) {
    std::string bytes;
    Encoder out(bytes);
    out.u32(static_cast<std::uint32_t>(members.size()));
    for (const auto& [id, is_voter] : members) out.u64(id).u8(is_voter).bytes("");
    return bytes;
  };
  const auto decode = [](std::uint32_t version, const std::string& members, const std::string& outgoing) {
    std::string bytes;
    Encoder(bytes).u32(version).raw(members).raw(outgoing);
    return decode_configuration(bytes);
  };
  CHECK(decode(1, group({{1, 1}, {2, 0}}), group({{1, 1}})).has_value());
  CHECK_FALSE(decode(2, group({{1, 1}}), group({})).has_value());          // version
  CHECK_FALSE(decode(1, group({{2, 1}, {1, 1}}), group({})).has_value());  // order
  CHECK_FALSE(decode(1, group({{1, 1}, {1, 1}}), group({})).has_value());  // twice
  CHECK_FALSE(decode(1, group({{0, 1}}), group({})).has_value());          // no id
  CHECK_FALSE(decode(1, group({{1, 3}}), group({})).has_value());          // none of the three kinds
  CHECK_FALSE(decode(1, group({{1, 1}}), group({{1, 0}})).has_value());    // an outgoing learner
  std::string many;
  Encoder out(many);
  out.u32(1).u32(65);
  for (std::uint64_t id = 1; id <= 65; ++id) out.u64(id).u8(1).bytes("");
  out.u32(0);
  CHECK_FALSE(decode_configuration(many).has_value());
}

TEST_CASE("whether a learner is joining is kept, and nobody is both joining and a voter") {
  Configuration configuration = voters({1});
  configuration.members.push_back({node(2), "b", false, true});
  configuration.members.push_back({node(3), "c", false, false});
  CHECK(decode_configuration(encode(configuration)) == configuration);
  CHECK(valid(configuration));
  configuration.members[1].voter = true;
  CHECK_FALSE(valid(configuration));
}

TEST_CASE("a cluster is governed only by a configuration with a voter (D22)") {
  CHECK(valid(voters({1})));
  CHECK_FALSE(valid(Configuration{}));
  CHECK_FALSE(valid(Configuration{{learner(1)}, {}}));
  CHECK_FALSE(valid(Configuration{{learner(1)}, {voter(1)}}));
  CHECK_FALSE(valid(Configuration{{voter(1)}, {learner(1)}}));
  CHECK_FALSE(valid(Configuration{{voter(2), voter(1)}, {}}));
  CHECK_FALSE(valid(Configuration{{voter(0)}, {}}));
  CHECK_FALSE(valid(Configuration{{voter(1)}, {voter(2), voter(1)}}));
  CHECK_FALSE(valid(Configuration{{voter(1)}, {voter(0)}}));
}

TEST_CASE("a group has at most members_max members") {
  Configuration configuration = voters({1});
  for (std::uint64_t id = 1; id <= members_max; ++id) configuration.outgoing.push_back(voter(id));
  CHECK(valid(configuration));
  configuration.outgoing.push_back(voter(members_max + 1));
  CHECK_FALSE(valid(configuration));
  std::swap(configuration.members, configuration.outgoing);
  CHECK_FALSE(valid(configuration));
}

TEST_SUITE_END();
