#include "node/change.hpp"

#include <doctest/doctest.h>

#include "base/codec.hpp"
#include "db_fixture.hpp"
#include "led_core.hpp"

using namespace flotilla;
using flotilla::node::Change;
using flotilla::node::ChangeAnswer;
using flotilla::node::decode_change;
using flotilla::node::encode;
using flotilla::node::is_done;
using Verdict = ChangeAnswer::Verdict;

namespace {

const Member one{NodeId{1}, "a:1", true};
const Member two{NodeId{2}, "b:1", true};
const Member learner{NodeId{3}, "c:1", false};
const Member joining{NodeId{3}, "c:1", false, true};
const Member promoted{NodeId{3}, "c:1", true};

std::vector<Change> all_kinds() {
  return {Change::add_learner(NodeId{3}, "c:1"), Change::promote(NodeId{3}),    Change::remove(NodeId{3}),
          Change::replace(NodeId{2}, promoted),  Change::configure({two, one}), Change::transfer(NodeId{2}),
          Change::transfer(std::nullopt)};
}

/// Leads alone, with a learner; its database has applied the first entries of its log, and knows what both can do.
struct Leader {
  explicit Leader(const Member& other) : core(test::core_of({one, other})) {
    core.campaign();
    test::write_all(core);
    REQUIRE(core.role() == Role::leader);
    state::StoreOptions options;
    options.directory = dir / "state";
    options.map_size = 16u << 20;
    options.sync = false;
    store = state::Store::open(options, test::test_commands()).value();
    apply(raft::EntryType::configuration, raft::encode(core.configuration()));
    for (const NodeId id : {one.id, other.id}) {
      apply(raft::EntryType::session, state::encode_session({id, 1, id.value, store->command_names()}));
    }
  }
  void apply(raft::EntryType type, std::string payload) {
    const raft::Entry entry{.term = core.term(),
                            .index = store->applied_index().next(),
                            .type = type,
                            .payload = SharedBytes(std::move(payload))};
    REQUIRE(store->apply({&entry, 1}));
  }
  /// The follower has all of the log, and says so.
  void hear_from(NodeId id) {
    core.step({id, core.id(), core.term(), raft::AppendReply{.accepted = true, .match_index = core.last_index()}});
    test::write_all(core);
  }
  Verdict ask(const Change& change, Index applied_index) {
    return node::carry_out(
               change,
               {.core = core, .store = *store, .applied_index = applied_index, .own_address = one.address, .time = 1})
        .verdict;
  }

  const test::TempDir dir;
  raft::Core core;
  std::unique_ptr<state::Store> store;
};

}  // namespace

TEST_SUITE_BEGIN("node.change");

TEST_CASE("a change arrives as it was sent, and no part of one is taken for a whole") {
  for (const Change& change : all_kinds()) {
    const std::string bytes = encode(change);
    CAPTURE(bytes.size());
    CHECK(decode_change(bytes) == change);
    for (std::size_t cut = 0; cut < bytes.size(); ++cut) CHECK_FALSE(decode_change(bytes.substr(0, cut)));
    CHECK_FALSE(decode_change(bytes + "x"));
  }
}

TEST_CASE("what no member sends is refused") {
  const auto bytes = [](std::uint8_t kind, std::uint32_t count, std::uint8_t voter, std::size_t address_bytes) {
    std::string out;
    Encoder encoder(out);
    encoder.u8(kind).u64(1).u64(2).u32(count);
    for (std::uint64_t id = 1; id <= count; ++id) encoder.u64(id).u8(voter).bytes(std::string(address_bytes, 'a'));
    return out;
  };
  CHECK(decode_change(bytes(5, 64, 1, 512)));
  CHECK_FALSE(decode_change(bytes(5, 65, 1, 1)));
  CHECK_FALSE(decode_change(bytes(5, 1, 1, 513)));
  CHECK_FALSE(decode_change(bytes(5, 1, 2, 1)));
  CHECK_FALSE(decode_change(bytes(0, 1, 1, 1)));  // a join comes by its own frame
  CHECK_FALSE(decode_change(bytes(7, 1, 1, 1)));
  CHECK_FALSE(decode_change(bytes(1, 0, 0, 1)));
  CHECK_FALSE(decode_change(bytes(4, 2, 1, 1)));
}

TEST_CASE("whether a change is done is seen from the members alone") {
  const auto done = [](const Change& change, std::vector<Member> members) { return is_done(change, members); };
  CHECK(done(Change::add_learner(NodeId{3}, "c:1"), {one, learner}));
  CHECK_FALSE(done(Change::add_learner(NodeId{3}, "c:1"), {one, joining}));  // it would become a voter by itself
  CHECK_FALSE(done(Change::add_learner(NodeId{3}, "d:1"), {one, learner}));
  CHECK_FALSE(done(Change::add_learner(NodeId{3}, "c:1"), {one}));
  CHECK(done(Change::promote(NodeId{3}), {one, promoted}));
  CHECK_FALSE(done(Change::promote(NodeId{3}), {one, learner}));
  CHECK_FALSE(done(Change::promote(NodeId{3}), {one}));
  CHECK(done(Change::remove(NodeId{3}), {one}));
  CHECK_FALSE(done(Change::remove(NodeId{3}), {one, learner}));
  CHECK(done(Change::replace(NodeId{2}, promoted), {one, promoted}));
  CHECK_FALSE(done(Change::replace(NodeId{2}, promoted), {one, two, promoted}));
  CHECK_FALSE(done(Change::replace(NodeId{2}, promoted), {one, learner}));
  CHECK(done(Change::configure({two, one}), {one, two}));
  CHECK(done(Change::configure({one, joining}), {one, learner}));
  CHECK_FALSE(done(Change::configure({two, one}), {one, two, learner}));
  CHECK(done(Change::join(joining), {one, learner}));
  CHECK(done(Change::join(joining), {one, promoted}));
  CHECK_FALSE(done(Change::join({NodeId{3}, "d:1", false, true}), {one, promoted}));
}

TEST_CASE("a learner that wants to vote becomes a voter once it has caught up, not before (D11)") {
  Leader leader(joining);
  const auto wanted = [&] { return node::upkeep(leader.core, *leader.store, one.address); };
  CHECK_FALSE(wanted());
  leader.hear_from(joining.id);
  REQUIRE(wanted());
  CHECK(wanted()->members == std::vector{one, promoted});
}

TEST_CASE("a change waits until the one before is applied here: only then it is known who was removed (D8)") {
  Leader leader(learner);
  REQUIRE(leader.ask(Change::remove(learner.id), Index{1}) == Verdict::appended);
  test::write_all(leader.core);
  const Index removal = leader.core.configuration_index();
  REQUIRE(leader.core.commit_index() == removal);
  const Change back = Change::add_learner(learner.id, learner.address);
  CHECK(leader.ask(back, removal.previous()) == Verdict::later);
  leader.apply(raft::EntryType::configuration, raft::encode(leader.core.configuration()));
  CHECK(leader.ask(back, removal) == Verdict::refused);
}

TEST_SUITE_END();
