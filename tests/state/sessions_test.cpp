#include "state/sessions.hpp"

#include <doctest/doctest.h>

#include "state/support.hpp"

using namespace state_test;
using flotilla::state::Sessions;

namespace {

constexpr std::uint64_t session = 100;

std::string count_of(Rig& rig, std::string_view key) {
  return std::string(rig.read().table("t").get(key).value_or("0"));
}

/// A store with one session open.
struct Open : Rig {
  Open() { REQUIRE(Rig::session(1, 1, state_test_session)); }
  static constexpr std::uint64_t state_test_session = 100;
};

}  // namespace

TEST_SUITE_BEGIN("state.sessions");

TEST_CASE("a call takes effect once, and every later copy gets the first one's answer") {
  Open rig;
  CHECK(rig.command("count", {"t", "k"}, {session, 1}).value() == "1");
  CHECK(rig.command("count", {"t", "k"}, {session, 1}).value() == "1");
  // In one batch with the first copy, too.
  const auto index = rig.next_index();
  const auto outcomes = rig.apply({command_entry(index, "count", {"t", "k"}, {session, 2}),
                                   command_entry(index + 1, "count", {"t", "k"}, {session, 2}),
                                   command_entry(index + 2, "count", {"t", "k"}, {session, 1})})
                            .value();
  CHECK(outcomes[0].result.value() == "2");
  CHECK(outcomes[1].result.value() == "2");
  CHECK(outcomes[2].result.value() == "1");
  rig.reopen();
  CHECK(rig.command("count", {"t", "k"}, {session, 2}).value() == "2");
  CHECK(count_of(rig, "k") == "2");
}

TEST_CASE("a copy of a failed call gets the same code and text, also after a restart") {
  Open rig;
  const auto first = rig.command("write_and_refuse", {"t", "k", "v"}, {session, 1});
  const auto refused = rig.command("refuse", {}, {session, 2});
  REQUIRE_FALSE(rig.run([](WriteTxn&) -> Result<Bytes> { throw std::runtime_error("only here"); }));
  const auto thrown = rig.command("write_and_throw", {"t", "k", "v"}, {session, 3});
  CHECK(thrown.error().message() == "thrown after writing");
  for (int round = 0; round < 2; ++round) {
    CHECK(rig.command("write_and_refuse", {"t", "k", "v"}, {session, 1}).error().message() == first.error().message());
    CHECK(rig.command("write_and_refuse", {"t", "k", "v"}, {session, 1}).error().code() == first.error().code());
    CHECK(rig.command("refuse", {}, {session, 2}).error().message() == refused.error().message());
    // An exception's text is not the same on all members, so it is not kept.
    const auto again = rig.command("write_and_throw", {"t", "k", "v"}, {session, 3});
    CHECK(again.error() == Errc::command_failed);
    CHECK(again.error().message() != thrown.error().message());
    rig.reopen();
  }
}

TEST_CASE("a command of a session that is not open is refused and does nothing") {
  Open rig;
  CHECK(rig.command("count", {"t", "k"}, {session + 1, 1}).error() == Errc::proposal_dropped);
  CHECK(count_of(rig, "k") == "0");
}

TEST_CASE("sequences below the acknowledged one are refused, and their results forgotten") {
  Open rig;
  for (std::uint64_t i = 1; i <= 5; ++i) REQUIRE(rig.command("count", {"t", "k"}, {session, i}));
  REQUIRE(rig.command("count", {"t", "k"}, {session, 6}, 5));
  CHECK(rig.command("count", {"t", "k"}, {session, 4}).error() == Errc::proposal_dropped);
  CHECK(rig.command("count", {"t", "k"}, {session, 5}).value() == "5");
  // A late copy with an older acknowledgement takes nothing back; sequence 0 is below all.
  CHECK(rig.command("count", {"t", "k"}, {session, 3}, 2).error() == Errc::proposal_dropped);
  CHECK(rig.command("count", {"t", "k"}, {session, 0}).error() == Errc::proposal_dropped);
  CHECK(rig.command("count", {"t", "k"}, {session, 7}, 9).error() == Errc::proposal_dropped);
  rig.reopen();
  CHECK(rig.command("count", {"t", "k"}, {session, 8}).error() == Errc::proposal_dropped);
  CHECK(count_of(rig, "k") == "6");
}

TEST_CASE("sequences may come in any order, each once") {
  Open rig;
  CHECK(rig.command("count", {"t", "k"}, {session, 9}).value() == "1");
  CHECK(rig.command("count", {"t", "k"}, {session, 2}).value() == "2");
  CHECK(rig.command("count", {"t", "k"}, {session, 5}).value() == "3");
  rig.reopen();
  CHECK(rig.command("count", {"t", "k"}, {session, 2}).value() == "2");
  CHECK(rig.command("count", {"t", "k"}, {session, 9}).value() == "1");
  CHECK(rig.command("count", {"t", "k"}, {session, 5}, 4).value() == "3");
  CHECK(rig.command("count", {"t", "k"}, {session, 2}).error() == Errc::proposal_dropped);
}

TEST_CASE("a later incarnation ends the node's earlier session; one not above the recorded is refused") {
  Open rig;
  REQUIRE(rig.session(2, 1, 200));
  REQUIRE(rig.command("count", {"t", "k"}, {session, 1}));
  CHECK(rig.session(1, 3, 101));
  CHECK(rig.command("count", {"t", "k"}, {session, 2}).error() == Errc::proposal_dropped);
  CHECK(rig.command("count", {"t", "k"}, {session, 1}).error() == Errc::proposal_dropped);
  CHECK(rig.command("count", {"t", "k"}, {101, 1}).value() == "2");
  CHECK(rig.command("count", {"t", "k"}, {200, 1}).value() == "3");
  CHECK(rig.session(1, 2, 102).error() == Errc::proposal_dropped);
  CHECK(rig.session(1, 3, 103).error() == Errc::proposal_dropped);
  rig.reopen();
  CHECK(rig.session(1, 3, 104).error() == Errc::proposal_dropped);
  CHECK(rig.session(1, 1, session).error() == Errc::proposal_dropped);
  // A second copy of the entry that opened the present session is no later one.
  CHECK(rig.session(1, 3, 101));
  CHECK(rig.command("count", {"t", "k"}, {101, 1}).value() == "2");
}

TEST_CASE("a session's name is its own") {
  Open rig;
  CHECK(rig.session(2, 1, session).error() == Errc::proposal_dropped);
  CHECK(rig.session(2, 1, 0).error() == Errc::proposal_dropped);
  CHECK(rig.session(2, 1, 200));
}

TEST_CASE("the session of a removed member ends") {
  Open rig;
  REQUIRE(rig.session(2, 1, 200));
  flotilla::raft::Configuration both;
  both.members = {{NodeId{1}, "a", true}, {NodeId{2}, "b", true}};
  flotilla::raft::Configuration one;
  one.members = {{NodeId{1}, "a", true}};
  const auto apply = [&](const flotilla::raft::Configuration& configuration) {
    REQUIRE(rig.apply({entry_of(EntryType::configuration, rig.next_index(), flotilla::raft::encode(configuration))}));
  };
  apply(both);
  auto joint = one;
  joint.outgoing = both.members;
  apply(joint);
  CHECK(rig.command("count", {"t", "k"}, {200, 1}));
  apply(one);
  CHECK(rig.command("count", {"t", "k"}, {200, 2}).error() == Errc::proposal_dropped);
  CHECK(rig.command("count", {"t", "k"}, {session, 1}));
  CHECK(rig.session(2, 1, 200).error() == Errc::proposal_dropped);
}

TEST_CASE("an id that was removed is remembered, and no incarnation of it opens a session again") {
  Open rig;
  flotilla::raft::Configuration both;
  both.members = {{NodeId{1}, "a", true}, {NodeId{2}, "b", false}};  // 2 never opened a session
  flotilla::raft::Configuration one;
  one.members = {{NodeId{1}, "a", true}};
  const auto apply = [&](const flotilla::raft::Configuration& configuration) {
    REQUIRE(rig.apply({entry_of(EntryType::configuration, rig.next_index(), flotilla::raft::encode(configuration))}));
  };
  apply(both);
  CHECK_FALSE(rig.store().was_removed(NodeId{2}));
  apply(one);
  CHECK(rig.store().was_removed(NodeId{2}));
  CHECK_FALSE(rig.store().was_removed(NodeId{1}));
  CHECK(rig.session(2, 1'000'000, 200).error() == Errc::proposal_dropped);
  rig.reopen();
  CHECK(rig.store().was_removed(NodeId{2}));
  CHECK(rig.session(2, 2'000'000, 201).error() == Errc::proposal_dropped);
}

TEST_CASE("what a batch did to sessions goes with the batch") {
  Open rig;
  const auto index = rig.next_index();
  // Each of these changes a session before a command of the same batch makes it run again.
  const auto outcomes =
      rig.apply({session_entry(index, 2, 1, 200), command_entry(index + 1, "count", {"t", "k"}, {200, 1}),
                 command_entry(index + 2, "count", {"t", "k"}, {session, 1}),
                 command_entry(index + 3, "write_and_refuse", {"t", "x", "v"}, {session, 2}),
                 command_entry(index + 4, "count", {"t", "k"}, {session, 1}), session_entry(index + 5, 2, 2, 201),
                 command_entry(index + 6, "write_and_throw", {"t", "x", "v"}, {201, 1}),
                 command_entry(index + 7, "count", {"t", "k"}, {201, 2})})
          .value();
  REQUIRE(outcomes.size() == 8);
  CHECK(outcomes[0].result);
  CHECK(outcomes[1].result.value() == "1");
  CHECK(outcomes[2].result.value() == "2");
  CHECK(outcomes[3].result.error() == Errc::not_found);
  CHECK(outcomes[4].result.value() == "2");
  CHECK(outcomes[5].result);
  CHECK(outcomes[6].result.error() == Errc::command_failed);
  CHECK(outcomes[7].result.value() == "3");
  CHECK(count_of(rig, "k") == "3");
  CHECK(rig.command("count", {"t", "k"}, {200, 2}).error() == Errc::proposal_dropped);
}

TEST_CASE("a session holds at most 16,384 unacknowledged results, and a refusal for that is final") {
  Open rig;
  std::vector<Entry> entries;
  std::uint64_t index = rig.next_index();
  for (std::uint64_t i = 1; i <= Sessions::results_max + 2; ++i) {
    entries.push_back(command_entry(index++, "count", {"t", "k"}, {session, i}));
  }
  const auto outcomes = rig.apply(entries).value();
  CHECK(outcomes[Sessions::results_max - 1].result.value() == std::to_string(Sessions::results_max));
  CHECK(outcomes[Sessions::results_max].result.error() == Errc::session_full);
  CHECK(outcomes[Sessions::results_max + 1].result.error() == Errc::session_full);
  rig.reopen();
  // Answers are still given, and an acknowledgement makes room, but not for what was refused.
  CHECK(rig.command("count", {"t", "k"}, {session, 7}).value() == "7");
  CHECK(rig.command("count", {"t", "k"}, {session, 20'000}, 100));
  CHECK(rig.command("count", {"t", "k"}, {session, Sessions::results_max + 1}, 100).error() == Errc::session_full);
  CHECK(count_of(rig, "k") == std::to_string(Sessions::results_max + 1));
}

TEST_CASE("a session holds at most 4 MiB of results; one that does not fit is taken back") {
  Open rig;
  const std::string large(1'500'000, 'x');
  CHECK(rig.command("put", {"t", "a", large}, {session, 1}).value() == large);
  CHECK(rig.command("put", {"t", "b", large}, {session, 2}));
  CHECK(rig.command("put", {"t", "c", large}, {session, 3}).error() == Errc::session_full);
  CHECK_FALSE(rig.read().table("t").contains("c"));
  CHECK(rig.command("put", {"t", "d", "small"}, {session, 4}));
  rig.reopen();
  CHECK(rig.command("put", {"t", "a", large}, {session, 1}).value() == large);
  CHECK(rig.command("put", {"t", "c", large}, {session, 3}, 3).error() == Errc::session_full);
  CHECK(rig.command("put", {"t", "e", large}, {session, 5}, 3));
  // One that fits no session is the command's own failure.
  const auto huge =
      rig.run([](WriteTxn&) -> Result<Bytes> { return std::string(Sessions::result_bytes_max + 1, 'x'); });
  CHECK(huge.error() == Errc::command_failed);
}

TEST_CASE("a session that is refused without end, ends") {
  Open rig;
  std::vector<Entry> entries;
  std::uint64_t index = rig.next_index();
  for (std::uint64_t i = 1; i <= Sessions::answers_max + 2; ++i) {
    entries.push_back(command_entry(index++, "count", {"t", "k"}, {session, i}));
  }
  const auto outcomes = rig.apply(entries).value();
  CHECK(outcomes[Sessions::answers_max].result.error() == Errc::session_full);
  CHECK(outcomes[Sessions::answers_max + 1].result.error() == Errc::proposal_dropped);
  CHECK(rig.command("count", {"t", "k"}, {session, 5}).error() == Errc::proposal_dropped);
}

TEST_CASE("a command cannot pass its own error off as a full session") {
  Open rig;
  rig.set_body([](WriteTxn&) -> Result<Bytes> { return flotilla::fail(Errc::session_full, "not really"); });
  CHECK(rig.command("body", {}, {session, 1}).error() == Errc::command_failed);
  CHECK(rig.command("body", {}, {session, 1}).error().message() == "not really");
}

TEST_CASE("without a session every command runs") {
  Rig rig;
  CHECK(rig.command("count", {"t", "k"}).value() == "1");
  CHECK(rig.command("count", {"t", "k"}).value() == "2");
}

TEST_CASE("a session row comes back as it was encoded, and no damaged one does") {
  flotilla::state::Session one;
  one.node_id = NodeId{3};
  one.incarnation = 4;
  one.acknowledged_below = 5;
  one.store({5, 0, "result"});
  one.store({9, 11, "text"});
  one.store({7, 42, ""});
  const std::string bytes = encode(one);
  const auto back = flotilla::state::decode_session_row(bytes);
  REQUIRE(back);
  CHECK(encode(*back) == bytes);
  CHECK(back->find(9)->bytes == "text");
  CHECK(back->find(7)->result().error() == Errc::session_full);
  CHECK_FALSE(back->find(6));
  CHECK(back->count == 2);
  CHECK(back->bytes == 10);
  for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
    CHECK_FALSE(flotilla::state::decode_session_row(bytes.substr(0, cut)));
  }
  CHECK_FALSE(flotilla::state::decode_session_row(bytes + "x"));
  std::string below = bytes;
  below[28] = 4;  // the first result's sequence
  CHECK_FALSE(flotilla::state::decode_session_row(below));
}

TEST_SUITE_END();
