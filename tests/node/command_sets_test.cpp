// A command enters the log only when every voter is known to have it.
#include "node/command_sets.hpp"

#include <doctest/doctest.h>

#include "db_fixture.hpp"

using namespace flotilla;
using namespace std::chrono_literals;
using flotilla::node::CommandSets;
using flotilla::node::lacks_commands;
using flotilla::test::eventually;

namespace {

using Nodes = std::map<NodeId, std::vector<std::string>>;

std::shared_ptr<const state::Nodes> nodes_of(Nodes commands) {
  return std::make_shared<const state::Nodes>(state::Nodes{{}, std::move(commands)});
}

raft::Configuration voters(std::vector<std::uint64_t> ids) {
  raft::Configuration configuration;
  for (const std::uint64_t id : ids) configuration.members.push_back({NodeId{id}, "a", true});
  return configuration;
}

Commands only_put() {
  Commands commands;
  commands.add("put", *test::test_commands().find("put"));
  return commands;
}

}  // namespace

TEST_SUITE_BEGIN("node.command_sets");

TEST_CASE("what every voter has is allowed, of both groups of a joint configuration, whatever learners have") {
  CommandSets sets;
  const auto nodes =
      nodes_of({{NodeId{1}, {"a", "b", "c"}}, {NodeId{2}, {"b", "c"}}, {NodeId{3}, {"c"}}, {NodeId{4}, {}}});
  raft::Configuration configuration = voters({1, 2});
  configuration.members.push_back({NodeId{4}, "d", false});
  sets.update(configuration, nodes);
  CHECK(sets.refuse("a")->message().find("0000000000000002") != std::string::npos);
  CHECK_FALSE(sets.refuse("b"));
  CHECK_FALSE(sets.refuse("c"));
  CHECK(sets.refuse("d"));
  configuration.outgoing.push_back({NodeId{3}, "c", true});
  sets.update(configuration, nodes);
  CHECK(sets.refuse("b").value() == Errc::unknown_command);
  CHECK_FALSE(sets.refuse("c"));
}

TEST_CASE("a voter that has said nothing is not guessed at") {
  CommandSets sets;
  sets.update(voters({1, 2}), nodes_of({{NodeId{1}, {"a"}}}));
  CHECK(sets.refuse("a"));
  sets.update(voters({1, 2}), nodes_of({{NodeId{1}, {"a"}}, {NodeId{2}, {"a"}}}));
  CHECK_FALSE(sets.refuse("a"));
  sets.update(voters({}), nodes_of({}));
  CHECK_FALSE(sets.refuse("a"));
}

TEST_CASE("a learner may become a voter when it has what all voters have") {
  const auto nodes =
      nodes_of({{NodeId{1}, {"a", "b"}}, {NodeId{2}, {"b", "c"}}, {NodeId{3}, {"c"}}, {NodeId{4}, {"b"}}});
  CHECK(lacks_commands(NodeId{3}, voters({1, 2}), *nodes)->find("'b'") != std::string::npos);
  CHECK_FALSE(lacks_commands(NodeId{4}, voters({1, 2}), *nodes));
  CHECK(lacks_commands(NodeId{5}, voters({1, 2}), *nodes));
}

TEST_CASE("members with other programs: refused where one would have to stop, promoted when it has what is used") {
  test::TempDir dir;
  const auto open = [&](const std::string& name, const Address& join, const Commands& commands) {
    Options options = test::test_options(dir / name);
    options.listen = "127.0.0.1:0";
    options.found = join.empty();
    if (!join.empty()) options.join = {join};
    return DB::open(options, commands).value();
  };
  DB first = open("first", "", test::test_commands());
  const Address at = first.status().listen;
  REQUIRE(first.command("put", {"k", "a"}).get());

  // It lacks `append`, which all voters have: it follows, and that alone.
  std::optional<DB> second(open("second", at, only_put()));
  eventually([&] { return first.status().members.size() == 2; });
  const NodeId id = second->status().node_id;
  const auto refused = [&] {
    const auto promoted = first.promote(id, {.timeout = 500ms}).get();
    REQUIRE_FALSE(promoted);
    return promoted.error().message();
  };
  eventually([&] { return refused().find("'append'") != std::string::npos; });
  REQUIRE(second->close());

  // Started with what it lacked it catches up and becomes a voter.
  second.emplace(open("second", at, test::test_commands()));
  eventually([&] {
    const auto members = first.status().members;
    return members[0].voter && members[1].voter;
  });
  eventually([&] { return first.command("append", {"k", "b"}).get().has_value(); });
  REQUIRE(second->barrier().get());
  REQUIRE(second->close());

  // A voter that comes back with less is not made to stop: what it lacks is refused, wherever it is asked for.
  second.emplace(open("second", at, only_put()));
  REQUIRE(second->command("put", {"k2", "v"}).get());  // so its new session is open, and says what it has
  REQUIRE(first.barrier().get());
  CHECK(first.command("append", {"k", "c"}).get().error() == Errc::unknown_command);
  CHECK(first.command("put", {"k3", "v"}).get());
  CHECK_FALSE(second->status().fault);
  CHECK(second->command("append", {"k", "c"}).get().error() == Errc::unknown_command);
  REQUIRE(second->close());
  second.emplace(open("second", at, test::test_commands()));
  eventually([&] { return first.command("append", {"k", "d"}).get().has_value(); });
}

TEST_SUITE_END();
