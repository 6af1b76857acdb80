#include "state/store.hpp"

#include <doctest/doctest.h>

#include <new>

#include "base/assert.hpp"
#include "state/support.hpp"

using namespace state_test;

namespace {

std::string value_of(Rig& rig, std::string_view table, std::string_view key) {
  const ReadTxn txn = rig.read();
  return std::string(txn.table(table).get(key).value_or("none"));
}

}  // namespace

TEST_SUITE_BEGIN("state.store");

TEST_CASE("a command's writes and result are there after apply") {
  Rig rig;
  CHECK(rig.command("put", {"t", "k", "v"}).value() == "v");
  CHECK(value_of(rig, "t", "k") == "v");
  CHECK(rig.store().applied_index() == Index{1});
  CHECK(rig.read().index() == Index{1});
  CHECK(rig.command("get", {"t", "k"}).value() == "v");
}

TEST_CASE("outcomes name the call, index and term of their entries, in log order") {
  Rig rig;
  std::vector<Entry> entries{entry_of(EntryType::noop, 1, ""), session_entry(2, 5, 1, 77),
                             command_entry(3, "put", {"t", "a", "1"}, {77, 1}), entry_of(EntryType::noop, 4, "", 2),
                             command_entry(5, "refuse", {}, {77, 2})};
  entries[4].term = Term{2};
  const auto outcomes = rig.apply(entries).value();
  REQUIRE(outcomes.size() == 3);
  CHECK(outcomes[0].call == CallId{77, 0});
  CHECK(outcomes[0].index == Index{2});
  CHECK(outcomes[0].result);
  CHECK(outcomes[1].call == CallId{77, 1});
  CHECK(outcomes[1].result.value() == "1");
  CHECK(outcomes[2].call == CallId{77, 2});
  CHECK(outcomes[2].term == Term{2});
  CHECK(outcomes[2].result.error() == Errc::not_found);
  CHECK(rig.store().applied().index == Index{5});
  CHECK(rig.store().applied().term == Term{2});
  CHECK(rig.store().applied().time == 1'000'005);
}

TEST_CASE("a command that fails after it wrote leaves nothing and does not disturb its batch") {
  for (const char* const bad : {"write_and_refuse", "write_and_throw"}) {
    CAPTURE(bad);
    Rig rig;
    const auto outcomes = rig.apply({command_entry(1, "put", {"t", "a", "1"}), command_entry(2, bad, {"t", "a", "2"}),
                                     command_entry(3, "get", {"t", "a"}), command_entry(4, "count", {"t", "n"}),
                                     command_entry(5, bad, {"new", "b", "2"}), command_entry(6, "count", {"t", "n"})})
                              .value();
    REQUIRE(outcomes.size() == 6);
    CHECK(outcomes[0].result.value() == "1");
    CHECK_FALSE(outcomes[1].result);
    CHECK(outcomes[2].result.value() == "1");
    CHECK(outcomes[3].result.value() == "1");
    CHECK_FALSE(outcomes[4].result);
    CHECK(outcomes[5].result.value() == "2");
    CHECK(value_of(rig, "t", "a") == "1");
    CHECK(value_of(rig, "t", "n") == "2");
    CHECK_FALSE(rig.read().table("new").exists());
    CHECK(rig.store().applied_index() == Index{6});
  }
}

TEST_CASE("an error keeps its code and text, an exception is command_failed with its text") {
  Rig rig;
  const auto refused = rig.command("write_and_refuse", {"t", "a", "2"});
  CHECK(refused.error() == Errc::not_found);
  CHECK(refused.error().message() == "refused after writing");
  const auto thrown = rig.command("write_and_throw", {"t", "a", "2"});
  CHECK(thrown.error() == Errc::command_failed);
  CHECK(thrown.error().message() == "thrown after writing");
  const auto short_of = rig.command("put", {"t"});
  CHECK(short_of.error() == Errc::command_failed);
  const auto foreign = rig.run([](WriteTxn&) -> Result<Bytes> {
    return flotilla::fail(flotilla::Error(std::make_error_code(std::errc::io_error), "foreign"));
  });
  CHECK(foreign.error() == Errc::command_failed);
  CHECK(foreign.error().message() == "foreign");
  const auto odd = rig.run([](WriteTxn&) -> Result<Bytes> { throw 5; });
  CHECK(odd.error() == Errc::command_failed);
}

TEST_CASE("a command that fails before it wrote runs once, one that fails after it wrote makes the batch run again") {
  int runs = 0;
  Commands commands = test_commands();
  commands.add("seen", [&runs](WriteTxn&, const Args&) -> Result<Bytes> {
    ++runs;
    return Bytes();
  });
  Rig rig(commands);
  REQUIRE(rig.apply({command_entry(1, "seen", {}), command_entry(2, "refuse", {})}));
  CHECK(runs == 1);
  REQUIRE(rig.apply({command_entry(3, "seen", {}), command_entry(4, "write_and_refuse", {"t", "k", "v"})}));
  CHECK(runs == 3);
}

TEST_CASE("many failing commands in one batch all leave nothing") {
  Rig rig;
  std::vector<Entry> entries;
  for (std::uint64_t i = 1; i <= 100; ++i) {
    const std::string key = std::to_string(i);
    entries.push_back(command_entry(i, i % 3 == 0 ? "count" : "write_and_refuse", {"t", i % 3 == 0 ? "n" : key, "x"}));
  }
  const auto outcomes = rig.apply(entries).value();
  REQUIRE(outcomes.size() == 100);
  for (std::size_t i = 0; i < 100; ++i) CHECK(outcomes[i].index == Index{i + 1});
  for (std::size_t i = 0; i < 100; ++i) CHECK(outcomes[i].result.has_value() == ((i + 1) % 3 == 0));
  CHECK(value_of(rig, "t", "n") == "33");
  CHECK(rig.read().table("t").size() == 1);
}

TEST_CASE("a table made by a failed command is gone, and its handle goes to nobody by mistake") {
  Rig rig;
  const auto outcomes = rig.apply({command_entry(1, "write_and_refuse", {"lost", "k", "lost"}),
                                   command_entry(2, "put", {"kept", "k", "kept"})})
                            .value();
  CHECK(outcomes[1].result);
  CHECK_FALSE(rig.read().table("lost").exists());
  CHECK(rig.read().tables() == std::vector<std::string>{"kept"});
  CHECK(value_of(rig, "kept", "k") == "kept");
  // The lost name anew, now of the other kind: nothing remembers the first attempt.
  CHECK(rig.command("add", {"lost", "k", "a"}));
  CHECK(rig.command("add", {"lost", "k", "b"}));
  CHECK(rig.read().table("lost").kind() == TableKind::sorted_duplicates);
  CHECK(rig.read().table("lost").size() == 2);
  CHECK(rig.read().table("kept").size() == 1);
  rig.reopen();
  CHECK(rig.read().table("lost").kind() == TableKind::sorted_duplicates);
  CHECK(rig.read().table("lost").size() == 2);
  CHECK(value_of(rig, "kept", "k") == "kept");
}

TEST_CASE("a snapshot older than a table sees it as absent, whatever handle it got") {
  Rig rig;
  REQUIRE(rig.command("put", {"first", "k", "1"}));
  const ReadTxn old = rig.read();
  REQUIRE(rig.command("put", {"second", "k", "2"}));
  CHECK_FALSE(old.table("second").exists());
  CHECK_FALSE(old.table("second").get("k"));
  CHECK(old.table("second").all().begin() == std::default_sentinel);
  CHECK(old.tables() == std::vector<std::string>{"first"});
  CHECK_FALSE(old.error());
  CHECK(old.index() == Index{1});
  CHECK(value_of(rig, "second", "k") == "2");
  // A handle that was used, freed by an abort and given away again.
  REQUIRE_FALSE(rig.command("write_and_refuse", {"third", "k", "3"}));
  const ReadTxn middle = rig.read();
  REQUIRE(rig.command("put", {"fourth", "k", "4"}));
  CHECK_FALSE(middle.table("third").exists());
  CHECK_FALSE(middle.table("fourth").get("k"));
  CHECK_FALSE(middle.error());
}

TEST_CASE("a restart continues at the applied index and applies nothing twice") {
  Rig rig;
  std::vector<Entry> entries;
  for (std::uint64_t i = 1; i <= 5; ++i) entries.push_back(command_entry(i, "count", {"t", "n"}));
  REQUIRE(rig.apply({entries.begin(), entries.begin() + 3}));
  const auto before = rig.store().applied();
  rig.reopen();
  CHECK(rig.store().applied().index == Index{3});
  CHECK(rig.store().applied_index() == Index{3});
  CHECK(rig.store().applied().term == before.term);
  CHECK(rig.store().applied().time == before.time);
  CHECK(rig.apply({entries.begin(), entries.begin() + 2}).value().empty());
  const auto outcomes = rig.apply(entries).value();
  REQUIRE(outcomes.size() == 2);
  CHECK(outcomes[0].index == Index{4});
  CHECK(outcomes[1].result.value() == "5");
  CHECK(value_of(rig, "t", "n") == "5");
}

TEST_CASE("a configuration entry is kept with its index, also across a restart") {
  Rig rig;
  flotilla::raft::Configuration configuration;
  configuration.members = {{NodeId{1}, "a:1", true}, {NodeId{2}, "b:2", false}};
  REQUIRE(rig.apply({entry_of(EntryType::noop, 1, ""),
                     entry_of(EntryType::configuration, 2, flotilla::raft::encode(configuration)),
                     command_entry(3, "put", {"t", "k", "v"})}));
  CHECK(rig.store().applied().configuration == configuration);
  CHECK(rig.store().applied().configuration_index == Index{2});
  // One in a batch that is run again is still applied once, and one in a batch that faults not at all.
  rig.reopen();
  CHECK(rig.store().applied().configuration == configuration);
  CHECK(rig.store().applied().configuration_index == Index{2});
  auto other = configuration;
  other.members[1].voter = true;
  CHECK_FALSE(rig.apply(
      {entry_of(EntryType::configuration, 4, flotilla::raft::encode(other)), command_entry(5, "nobody", {})}));
  CHECK(rig.store().applied().configuration == configuration);
  rig.reopen();
  CHECK(rig.store().applied().configuration == configuration);
  REQUIRE(rig.apply({entry_of(EntryType::configuration, 4, flotilla::raft::encode(other)),
                     command_entry(5, "write_and_refuse", {"t", "k", "w"})}));
  CHECK(rig.store().applied().configuration == other);
  CHECK(rig.store().applied().configuration_index == Index{4});
}

TEST_CASE("what a member cannot apply stops it, names it, and takes nothing of the batch along") {
  struct Case {
    Entry entry;
    std::string_view part_of_message;
  };
  const std::vector<Case> cases{
      {command_entry(3, "missing", {}), "missing"},
      {entry_of(EntryType::command, 3, "short"), "malformed"},
      {entry_of(EntryType::session, 3, "short"), "malformed"},
      {entry_of(EntryType::configuration, 3, "short"), "malformed"},
      {entry_of(static_cast<EntryType>(99), 3, ""), "99"},
  };
  for (const Case& one : cases) {
    CAPTURE(one.part_of_message);
    Rig rig;
    REQUIRE(rig.command("put", {"t", "k", "1"}));
    const auto stopped = rig.apply({command_entry(2, "put", {"t", "k", "2"}), one.entry});
    REQUIRE_FALSE(stopped);
    CHECK(stopped.error() == Errc::stopped);
    CHECK(stopped.error().message().find(one.part_of_message) != std::string::npos);
    CHECK(rig.store().applied().index == Index{1});
    CHECK(value_of(rig, "t", "k") == "1");
    // The fault stays until the store is opened again.
    CHECK(rig.command("put", {"t", "k", "3"}).error() == Errc::stopped);
    CHECK(value_of(rig, "t", "k") == "1");
    rig.reopen();
    CHECK(rig.command("put", {"t", "k", "3"}));
  }
}

TEST_CASE("memory running out in a command is a fault of this member, not a result") {
  Rig rig;
  const auto stopped = rig.run([](WriteTxn& txn) -> Result<Bytes> {
    static_cast<void>(txn.table("t").put("k", "v"));
    throw std::bad_alloc();
  });
  CHECK(stopped.error() == Errc::stopped);
  CHECK(rig.store().applied().index == Index{0});
  CHECK_FALSE(rig.read().table("t").exists());
}

TEST_CASE("a broken invariant inside a command stops this member, even if the command catches it") {
  for (const bool caught : {false, true}) {
    Rig rig;
    flotilla::set_assert_handler([](const char*, const char*, int) { throw std::logic_error("broken"); });
    const auto stopped = rig.run([&](WriteTxn&) -> Result<Bytes> {
      try {
        FLOTILLA_ASSERT(rig.store().applied_index() == Index{99});
      } catch (const std::logic_error&) {
        if (!caught) throw;
      }
      return "all is well";
    });
    flotilla::set_assert_handler(nullptr);
    CHECK(stopped.error() == Errc::stopped);
    CHECK(rig.store().applied_index() == Index{0});
  }
}

TEST_CASE("a full map is a fault, leaves the batch unapplied, and a larger map goes on") {
  Rig rig(test_commands(), [](StoreOptions& options) { options.map_size = 1u << 20; });
  REQUIRE(rig.command("put", {"t", "small", "1"}));
  REQUIRE(rig.store().checkpoint());
  const std::string large(400'000, 'x');
  const std::vector<Entry> entries{command_entry(2, "put", {"t", "a", large}),
                                   command_entry(3, "put", {"t", "b", large}),
                                   command_entry(4, "put", {"t", "c", large})};
  const auto full = rig.apply(entries);
  REQUIRE_FALSE(full);
  CHECK(full.error() == Errc::map_full);
  CHECK(rig.store().applied_index() == Index{1});
  CHECK(rig.read().table("t").size() == 1);
  CHECK(rig.apply(entries).error() == Errc::map_full);
  rig.options().map_size = 16u << 20;
  rig.reopen();
  CHECK(rig.apply(entries).value().size() == 3);
  CHECK(rig.read().table("t").size() == 4);
}

TEST_CASE("a command cannot turn a fault of the store into a result") {
  Rig rig(test_commands(), [](StoreOptions& options) { options.map_size = 1u << 20; });
  const std::string large(2'000'000, 'x');
  const auto full = rig.run([&](WriteTxn& txn) -> Result<Bytes> {
    auto table = txn.table("t");
    CHECK(table.put("k", large).error() == Errc::map_full);
    CHECK(table.put("k", "small").error() == Errc::map_full);
    CHECK_FALSE(table.get("k"));
    return "all is well";
  });
  CHECK(full.error() == Errc::map_full);
  CHECK(rig.store().applied_index() == Index{0});
}

TEST_CASE("time never goes back and is that of the entry") {
  Rig rig;
  std::vector<std::int64_t> times;
  rig.set_body([&](WriteTxn& txn) -> Result<Bytes> {
    times.push_back(txn.time().time_since_epoch().count());
    return Bytes();
  });
  std::vector<Entry> entries{command_entry(1, "body", {}), command_entry(2, "body", {}), command_entry(3, "body", {})};
  entries[0].time = 50;
  entries[1].time = 40;
  entries[2].time = 60;
  REQUIRE(rig.apply(entries));
  CHECK(times == std::vector<std::int64_t>{50, 50, 60});
}

TEST_CASE("random values follow from the entry alone: not from the batch, and not from what ran before") {
  Rig one;
  Rig two;
  std::vector<std::string> alone;
  for (std::uint64_t i = 1; i <= 4; ++i) alone.push_back(one.command("random", {}).value());
  const auto together =
      two.apply({command_entry(1, "random", {}), command_entry(2, "random", {}), command_entry(3, "random", {}),
                 command_entry(4, "random", {}), command_entry(5, "write_and_refuse", {"t", "k", "v"})})
          .value();
  for (std::size_t i = 0; i < 4; ++i) CHECK(together[i].result.value() == alone[i]);
  CHECK(std::set<std::string>(alone.begin(), alone.end()).size() == 4);
  CHECK(alone[0].substr(0, alone[0].find(' ')) != alone[0].substr(alone[0].find(' ') + 1));
}

TEST_CASE("the code knows when it is inside a command, also after one that threw") {
  Rig rig;
  CHECK_FALSE(flotilla::state::inside_command());
  REQUIRE_FALSE(rig.run([](WriteTxn&) -> Result<Bytes> {
    CHECK(flotilla::state::inside_command());
    throw std::runtime_error("x");
  }));
  CHECK_FALSE(flotilla::state::inside_command());
}

TEST_CASE("stores fed the same entries in batches of any size are equal, to the last row") {
  std::vector<Entry> entries;
  std::uint64_t index = 0;
  entries.push_back(session_entry(++index, 1, 1, 11));
  entries.push_back(session_entry(++index, 2, 1, 22));
  const char* const names[] = {"put", "count", "write_and_refuse", "refuse", "write_and_throw", "add", "random"};
  std::uint64_t sequence = 0;
  for (std::uint64_t i = 0; i < 300; ++i) {
    const std::string key = std::to_string(i * 7919 % 40);
    const char* const name = names[i * 31 % 7];
    const std::string table = std::string(name) + std::to_string(i / 100);
    ++sequence;
    entries.push_back(command_entry(++index, name, {table, key, key}, {i % 2 == 0 ? 11u : 22u, sequence},
                                    sequence > 20 ? sequence - 20 : 0));
    if (i % 10 == 0) {  // a second copy of the same call
      entries.push_back(command_entry(++index, name, {table, key, key}, {i % 2 == 0 ? 11u : 22u, sequence}));
    }
  }
  using Dump = decltype(dump({}));
  std::optional<Dump> expected;
  std::optional<std::uint64_t> expected_hash;
  std::vector<std::string> expected_results;
  for (const std::size_t size : {std::size_t{1}, std::size_t{2}, std::size_t{7}, std::size_t{64}, entries.size()}) {
    CAPTURE(size);
    Rig rig;
    std::vector<std::string> results;
    for (std::size_t at = 0; at < entries.size(); at += size) {
      const auto part = std::span<const Entry>(entries).subspan(at, std::min(size, entries.size() - at));
      const auto outcomes = rig.store().apply(part);
      REQUIRE(outcomes);
      for (const Outcome& outcome : *outcomes) {
        results.push_back(outcome.result ? "ok " + *outcome.result : outcome.result.error().message());
      }
    }
    const auto hash = Store::content_hash(rig.read()).value();
    rig.close();
    const auto rows = dump(rig.options().directory);
    if (!expected) {
      expected = rows;
      expected_hash = hash;
      expected_results = results;
    }
    CHECK(rows == *expected);
    CHECK(hash == *expected_hash);
    CHECK(results == expected_results);
  }
}

TEST_CASE("the content hash differs where contents do, and only there") {
  const auto hash_of = [](const std::vector<std::vector<std::string_view>>& commands) {
    Rig rig;
    for (const auto& command : commands) {
      REQUIRE(rig.command(command[0], {command.begin() + 1, command.end()}));
    }
    return Store::content_hash(rig.read()).value();
  };
  const auto one = hash_of({{"put", "t", "a", "1"}, {"put", "t", "b", "2"}});
  CHECK(one == hash_of({{"put", "t", "b", "2"}, {"put", "t", "a", "0"}, {"put", "t", "a", "1"}}));
  CHECK(one != hash_of({{"put", "t", "a", "1"}, {"put", "t", "b", "3"}}));
  CHECK(one != hash_of({{"put", "u", "a", "1"}, {"put", "u", "b", "2"}}));
  CHECK(one != hash_of({{"put", "t", "a", "1"}}));
  CHECK(one != hash_of({{"add", "t", "a", "1"}, {"add", "t", "b", "2"}}));
  CHECK(hash_of({{"put", "t", "ab", "c"}}) != hash_of({{"put", "t", "a", "bc"}}));
}

TEST_CASE("the rows of the reserved table are those of FORMAT.md") {
  Rig rig;
  flotilla::raft::Configuration configuration;
  configuration.members = {{NodeId{1}, "a:1", true}};
  REQUIRE(rig.apply({entry_of(EntryType::configuration, 1, flotilla::raft::encode(configuration)),
                     session_entry(2, 0x0102, 3, 0x0405), command_entry(3, "put", {"t", "k", "v"}, {0x0405, 1}),
                     command_entry(4, "add", {"d", "k", "v"}, {0x0405, 2}, 2),
                     command_entry(5, "refuse", {}, {0x0405, 3}, 2),
                     command_entry(6, "write_and_throw", {"t", "k", "w"}, {0x0405, 4}, 2)}));
  rig.close();
  std::map<std::string, std::string> rows;
  const auto all = dump(rig.options().directory);
  for (const auto& [key, value] : all.at("__flotilla")) rows[to_hex(key)] = to_hex(value);
  const auto key = [](std::string_view text, std::string_view id = {}) {
    return to_hex(std::string(text)) + std::string(id);
  };
  CHECK(rows.at(key("format")) == "01000000");
  CHECK(rows.at(key("applied")) ==
        "0600000000000000"
        "0100000000000000"
        "46420f0000000000"
        "0100000000000000");
  CHECK(rows.at(key("configuration")) == to_hex(flotilla::raft::encode(configuration)));
  CHECK(rows.at(key("table/t")) == "00");
  CHECK(rows.at(key("table/d")) == "01");
  CHECK(rows.at(key("node/", "0000000000000102")) ==
        "0300000000000000"
        "0504000000000000"
        "00000000");
  CHECK(rows.at(key("session/", "0000000000000405")) ==
        "0201000000000000"
        "0300000000000000"
        "0200000000000000"
        "03000000"
        "0200000000000000"
        "0000"
        "00000000"
        "0300000000000000"
        "2d00"
        "16000000" +
            to_hex("refused before writing") +
            "0400000000000000"
            "0b00"
            "00000000");
  CHECK(rows.size() == 7);
  CHECK(all.size() == 3);
}

TEST_CASE("a database of another format or of another's making is refused") {
  const auto change = [](const std::filesystem::path& directory, const char* table, std::string key,
                         std::string value) {
    MDB_env* env = nullptr;
    MDB_txn* txn = nullptr;
    MDB_dbi dbi = 0;
    REQUIRE(mdb_env_create(&env) == 0);
    REQUIRE(mdb_env_set_maxdbs(env, 10) == 0);
    REQUIRE(mdb_env_open(env, directory.c_str(), MDB_NOSYNC, 0600) == 0);
    REQUIRE(mdb_txn_begin(env, nullptr, 0, &txn) == 0);
    REQUIRE(mdb_dbi_open(txn, table, MDB_CREATE, &dbi) == 0);
    MDB_val key_val{key.size(), key.data()};
    MDB_val value_val{value.size(), value.data()};
    REQUIRE(mdb_put(txn, dbi, &key_val, &value_val, 0) == 0);
    REQUIRE(mdb_txn_commit(txn) == 0);
    mdb_env_close(env);
  };
  const auto refused = [&](const char* table, const std::string& key, const std::string& value) {
    Rig rig;
    REQUIRE(rig.command("put", {"t", "k", "v"}));
    rig.close();
    change(rig.options().directory, table, key, value);
    accept_changes(rig.options().directory);
    auto opened = Store::open(rig.options(), test_commands());
    REQUIRE_FALSE(opened);
    return opened.error();
  };
  CHECK(refused("__flotilla", "format", std::string("\2\0\0\0", 4)) == Errc::version_unsupported);
  CHECK(refused("__flotilla", "applied", "short") == Errc::damaged);
  CHECK(refused("__flotilla", "configuration", "short") == Errc::damaged);
  CHECK(refused("__flotilla", "session/12345678", "short") == Errc::damaged);
  CHECK(refused("__flotilla", "node/12345678", "short") == Errc::damaged);
  CHECK(refused("__flotilla", "table/t", "\x05") == Errc::damaged);
  CHECK(refused("__flotilla", "table/t", "\x01") == Errc::damaged);
  CHECK(refused("__flotilla", "table/gone", std::string(1, '\0')) == Errc::damaged);
  CHECK(refused("stranger", "k", "v") == Errc::damaged);
  TempDir dir;
  std::filesystem::create_directories(dir.path() / "state");
  change(dir.path() / "state", "other", "k", "v");
  CHECK(Store::open(options_in(dir.path() / "state"), test_commands()).error() == Errc::damaged);
}

TEST_CASE("a registry with a malformed name does not open") {
  TempDir dir;
  Commands commands;
  commands.add("", [](WriteTxn&, const Args&) -> Result<Bytes> { return Bytes(); });
  CHECK(Store::open(options_in(dir.path()), commands).error() == Errc::invalid_argument);
}

TEST_SUITE_END();
