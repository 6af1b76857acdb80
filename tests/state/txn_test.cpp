#include "flotilla/txn.hpp"

#include <doctest/doctest.h>

#include <random>
#include <set>

#include "state/support.hpp"

using namespace state_test;

namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;
/// The reference: a plain table has one pair per key, a sorted-duplicates table any.
using Model = std::set<std::pair<std::string, std::string>>;

template <class R>
Pairs pairs_of(R range) {
  Pairs out;
  for (const auto& [key, value] : range) out.emplace_back(key, value);
  return out;
}

template <class Keep>
Pairs pairs_of(const Model& model, Keep keep) {
  Pairs out;
  for (const auto& pair : model) {
    if (keep(pair.first)) out.push_back(pair);
  }
  return out;
}

Pairs reversed(Pairs pairs) {
  std::reverse(pairs.begin(), pairs.end());
  return pairs;
}

/// A key or value of few distinct ones, so that operations meet; sometimes long, so that pages split.
std::string word(std::mt19937_64& random, std::size_t long_bytes) {
  static constexpr char letters[] = {'\0', 'a', 'b', '\x7f', static_cast<char>(0x80), static_cast<char>(0xff)};
  std::string out;
  const std::size_t size = 1 + random() % 3;
  for (std::size_t i = 0; i < size; ++i) out.push_back(letters[random() % 6]);
  if (random() % 4 == 0) out.append(random() % long_bytes, 'x');
  return out;
}

void compare(const Table& table, const Model& model, std::mt19937_64& random) {
  const auto all = [](const std::string&) { return true; };
  CHECK(table.size() == model.size());
  CHECK(pairs_of(table.all()) == pairs_of(model, all));
  CHECK(pairs_of(table.all_backward()) == reversed(pairs_of(model, all)));
  for (int i = 0; i < 4; ++i) {
    const std::string low = random() % 4 == 0 ? "" : word(random, 500);
    const std::string high = word(random, 500);
    const auto between = [&](const std::string& key) { return key >= low && key < high; };
    const auto above = [&](const std::string& key) { return key >= low; };
    const auto begins = [&](const std::string& key) { return key.starts_with(low); };
    const auto equal = [&](const std::string& key) { return key == high; };
    CHECK(pairs_of(table.range(low, high)) == pairs_of(model, between));
    CHECK(pairs_of(table.range_backward(low, high)) == reversed(pairs_of(model, between)));
    CHECK(pairs_of(table.range(low)) == pairs_of(model, above));
    CHECK(pairs_of(table.range_backward(low)) == reversed(pairs_of(model, above)));
    CHECK(pairs_of(table.prefix(low)) == pairs_of(model, begins));
    CHECK(pairs_of(table.values(high)) == pairs_of(model, equal));
    const auto values = pairs_of(model, equal);
    CHECK(table.get(high) == (values.empty() ? std::optional<std::string_view>() : values.front().second));
    CHECK(table.contains(high) == !values.empty());
    const std::string value = word(random, 400);
    CHECK(table.contains(high, value) == model.contains({high, value}));
    if (!values.empty()) CHECK(table.contains(high, values.back().second));
  }
}

/// Moves a cursor about and compares every step with an iterator of the model.
void walk(flotilla::Cursor& cursor, const Model& model, TableKind kind, std::mt19937_64& random, int steps) {
  auto at = model.end();
  bool valid = cursor.valid();
  if (valid) at = model.find({std::string(cursor.key()), std::string(cursor.value())});
  if (valid && at == model.end()) {  // the pair was removed under it: begin anew
    valid = false;
  }
  for (int i = 0; i < steps; ++i) {
    const auto check = [&](bool moved) {
      valid = at != model.end();
      CHECK(moved == valid);
      CHECK(cursor.valid() == valid);
      if (!valid || !moved) return;
      CHECK(cursor.key() == at->first);
      CHECK(cursor.value() == at->second);
    };
    switch (random() % 8) {
      case 0:
        at = model.begin();
        check(cursor.first());
        break;
      case 1:
        at = model.empty() ? model.end() : std::prev(model.end());
        check(cursor.last());
        break;
      case 2: {
        const std::string key = random() % 5 == 0 ? std::string(511, 'b') + "b" : word(random, 600);
        at = model.lower_bound({key, ""});
        check(cursor.seek(key));
        break;
      }
      case 3: {
        const std::string key = word(random, 500);
        at = model.lower_bound({key, ""});
        if (at != model.end() && at->first != key) at = model.end();
        check(cursor.find(key));
        break;
      }
      case 4: {
        if (kind == TableKind::plain) break;
        const std::string key = word(random, 500);
        const std::string value = random() % 5 == 0 ? std::string(520, 'b') : word(random, 400);
        at = model.lower_bound({key, value});
        if (at != model.end() && at->first != key) at = model.end();
        check(cursor.find(key, value));
        break;
      }
      case 5:
        if (!valid) {
          CHECK_FALSE(cursor.next());
          break;
        }
        ++at;
        check(cursor.next());
        break;
      case 6:
        if (!valid) {
          CHECK_FALSE(cursor.previous());
          break;
        }
        at = at == model.begin() ? model.end() : std::prev(at);
        check(cursor.previous());
        break;
      default: {
        if (!valid) {
          CHECK_FALSE(cursor.next_key());
          break;
        }
        const std::string key = at->first;
        while (at != model.end() && at->first == key) ++at;
        check(cursor.next_key());
        break;
      }
    }
  }
}

/// One random write, to the table and to the model.
void write(flotilla::WriteTable& table, Model& model, TableKind kind, std::mt19937_64& random) {
  const std::string key = word(random, 500);
  const std::string value = word(random, kind == TableKind::plain ? 3000 : 400);
  const bool plain = kind == TableKind::plain;
  const auto first = model.lower_bound({key, ""});
  const bool there = first != model.end() && first->first == key;
  const auto remove_key = [&] { std::erase_if(model, [&](const auto& pair) { return pair.first == key; }); };
  switch (random() % 8) {
    case 0:
    case 1:
    case 2:
      if (plain) remove_key();
      model.emplace(key, value);
      CHECK(table.put(key, value));
      break;
    case 3: {
      const bool inserts = plain ? !there : !model.contains({key, value});
      if (inserts) model.emplace(key, value);
      CHECK(table.insert(key, value).value() == inserts);
      break;
    }
    case 4:
      remove_key();
      CHECK(table.remove(key).value() == there);
      break;
    case 5:
    case 6: {
      // Mostly a pair that is there.
      std::string wanted = value;
      if (there && random() % 4 != 0) wanted = first->second;
      CHECK(table.remove(key, wanted).value() == (model.erase({key, wanted}) > 0));
      break;
    }
    default:
      if (random() % 30 != 0) break;
      model.clear();
      CHECK(table.clear());
      break;
  }
}

}  // namespace

TEST_SUITE_BEGIN("state.txn");

TEST_CASE("tables of both kinds behave as sorted sets of pairs, in commands and in snapshots") {
  for (const TableKind kind : {TableKind::plain, TableKind::sorted_duplicates}) {
    for (std::uint64_t seed = first_seed(); seed < first_seed() + 12; ++seed) {
      CAPTURE(static_cast<int>(kind));
      CAPTURE(seed);
      std::mt19937_64 random(seed);
      Rig rig;
      Model model;
      for (int round = 0; round < 12; ++round) {
        const auto done = rig.run([&](WriteTxn& txn) -> Result<Bytes> {
          auto table = kind == TableKind::plain ? txn.table("t") : txn.duplicates_table("t");
          for (int i = 0; i < 40; ++i) write(table, model, kind, random);
          compare(table, model, random);
          return Bytes();
        });
        REQUIRE(done);
        const ReadTxn snapshot = rig.read();
        const Table table = snapshot.table("t");
        if (table.exists()) CHECK(table.kind() == kind);
        compare(table, model, random);
        auto cursor = table.cursor();
        walk(cursor, model, kind, random, 60);
        CHECK_FALSE(snapshot.error());
      }
    }
  }
}

TEST_CASE("a cursor finds its neighbours whatever was written since it moved") {
  for (const TableKind kind : {TableKind::plain, TableKind::sorted_duplicates}) {
    for (std::uint64_t seed = first_seed(); seed < first_seed() + 12; ++seed) {
      CAPTURE(static_cast<int>(kind));
      CAPTURE(seed);
      std::mt19937_64 random(seed);
      Rig rig;
      const auto done = rig.run([&](WriteTxn& txn) -> Result<Bytes> {
        Model model;
        auto table = kind == TableKind::plain ? txn.table("t") : txn.duplicates_table("t");
        auto cursor = table.cursor();
        for (int i = 0; i < 400; ++i) {
          walk(cursor, model, kind, random, 3);
          if (!cursor.valid()) cursor.seek(word(random, 500));
          if (!cursor.valid()) {
            write(table, model, kind, random);
            continue;
          }
          const std::pair<std::string, std::string> place(cursor.key(), cursor.value());
          for (std::uint64_t writes = 1 + random() % 3; writes > 0; --writes) {
            if (random() % 3 == 0) {  // the very pair it stands on
              CHECK(table.remove(place.first, place.second).value() == (model.erase(place) > 0));
            } else {
              write(table, model, kind, random);
            }
          }
          // The order of a plain table is that of its keys: a new value does not move a pair.
          const auto probe = kind == TableKind::plain ? std::pair(place.first, std::string(4000, '\xff')) : place;
          const auto first_of_key = model.lower_bound({place.first, ""});
          Model::const_iterator expected = model.end();
          bool moved = false;
          switch (random() % 3) {
            case 0:
              expected = model.upper_bound(probe);
              moved = cursor.next();
              break;
            case 1: {
              const auto at = kind == TableKind::plain ? first_of_key : model.lower_bound(place);
              if (at != model.begin()) expected = std::prev(at);
              moved = cursor.previous();
              break;
            }
            default:
              expected = first_of_key;
              while (expected != model.end() && expected->first == place.first) ++expected;
              moved = cursor.next_key();
              break;
          }
          REQUIRE(moved == (expected != model.end()));
          if (!moved) continue;
          REQUIRE(cursor.key() == expected->first);
          REQUIRE(cursor.value() == expected->second);
        }
        return Bytes();
      });
      REQUIRE(done);
    }
  }
}

TEST_CASE("a table is made by its first write, and reading or emptying one makes none") {
  Rig rig;
  REQUIRE(rig.run([](WriteTxn& txn) -> Result<Bytes> {
    auto table = txn.table("t");
    CHECK_FALSE(table.exists());
    CHECK_FALSE(table.get("k"));
    CHECK(table.size() == 0);
    CHECK(table.clear());
    CHECK_FALSE(table.remove("k").value());
    CHECK_FALSE(table.remove("k", "v").value());
    auto cursor = table.cursor();
    CHECK_FALSE(cursor.first());
    CHECK_FALSE(table.exists());
    return Bytes();
  }));
  CHECK(rig.read().tables().empty());
  REQUIRE(rig.run([](WriteTxn& txn) -> Result<Bytes> {
    auto table = txn.table("t");
    auto same = txn.table("t");
    auto cursor = table.cursor();
    CHECK(same.put("k", "v"));
    // Both handles and the cursor see the table that one of them made.
    CHECK(table.exists());
    CHECK(table.get("k") == "v");
    CHECK(cursor.first());
    CHECK(txn.table("t").get("k") == "v");
    return Bytes();
  }));
  CHECK(rig.read().tables() == std::vector<std::string>{"t"});
  REQUIRE(rig.run([](WriteTxn& txn) -> Result<Bytes> {
    CHECK(txn.table("t").clear());
    return Bytes();
  }));
  CHECK(rig.read().table("t").exists());
  CHECK(rig.read().table("t").size() == 0);
}

TEST_CASE("limits are those of the format, to the byte") {
  Rig rig;
  const std::string key(511, 'k');
  const std::string name(255, 'n');
  REQUIRE(rig.run([&](WriteTxn& txn) -> Result<Bytes> {
    CHECK(txn.table(name).put(key, std::string(100'000, 'v')));
    CHECK(txn.table("_one").put(std::string_view("\0", 1), ""));
    CHECK(txn.duplicates_table("d").put(key, std::string(511, 'v')));
    CHECK(txn.duplicates_table("d").put("k", "v"));
    return Bytes();
  }));
  CHECK(rig.read().table(name).get(key)->size() == 100'000);
  CHECK(rig.read().table("_one").get(std::string_view("\0", 1)) == "");
  CHECK(rig.read().table("d").contains(key, std::string(511, 'v')));
  // Beyond them nothing is found, and it is no error to look.
  CHECK_FALSE(rig.read().table(name).get(key + "k"));
  CHECK_FALSE(rig.read().table(name).get(""));
  CHECK_FALSE(rig.read().table("d").contains("k", ""));
  CHECK_FALSE(rig.read().table("d").contains("k", std::string(512, 'v')));
  CHECK_FALSE(rig.read().table(std::string(256, 'n')).exists());
  CHECK_FALSE(rig.read().table("__flotilla").exists());
}

TEST_CASE("a refused write fails its command even when nobody looks at its result") {
  using Misuse = std::function<void(WriteTxn&)>;
  const std::string long_key(512, 'k');
  const std::string value_over(flotilla::value_bytes_max + 1, 'v');
  const auto ignore = [](const auto&) {};
  const std::vector<std::pair<const char*, Misuse>> misuses{
      {"empty key", [&](WriteTxn& txn) { ignore(txn.table("t").put("", "v")); }},
      {"long key", [&](WriteTxn& txn) { ignore(txn.table("t").put(long_key, "v")); }},
      {"insert", [&](WriteTxn& txn) { ignore(txn.table("t").insert(long_key, "v")); }},
      {"remove", [&](WriteTxn& txn) { ignore(txn.table("t").remove(long_key)); }},
      {"remove pair", [&](WriteTxn& txn) { ignore(txn.table("t").remove("", "v")); }},
      {"value", [&](WriteTxn& txn) { ignore(txn.table("t").put("k", value_over)); }},
      {"empty duplicate", [&](WriteTxn& txn) { ignore(txn.duplicates_table("d").put("k", "")); }},
      {"long duplicate", [&](WriteTxn& txn) { ignore(txn.duplicates_table("d").put("k", long_key)); }},
      {"remove duplicate", [&](WriteTxn& txn) { ignore(txn.duplicates_table("d").remove("k", long_key)); }},
      {"empty name", [&](WriteTxn& txn) { ignore(txn.table("").put("k", "v")); }},
      {"long name", [&](WriteTxn& txn) { ignore(txn.table(std::string(256, 'n')).put("k", "v")); }},
      {"reserved name", [&](WriteTxn& txn) { ignore(txn.table("__flotilla").put("applied", "v")); }},
      {"zero in name", [&](WriteTxn& txn) { ignore(txn.table(std::string_view("a\0b", 3)).put("k", "v")); }},
      {"kind", [&](WriteTxn& txn) { ignore(txn.duplicates_table("t").put("k", "v")); }},
      {"other kind", [&](WriteTxn& txn) { ignore(txn.table("d").clear()); }},
      {"kind of a table to be",
       [&](WriteTxn& txn) {
         ignore(txn.table("new").size());
         ignore(txn.duplicates_table("new").put("k", "v"));
       }},
  };
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "before"}));
  REQUIRE(rig.command("add", {"d", "k", "before"}));
  for (const auto& misuse : misuses) {
    for (const bool wrote : {false, true}) {
      CAPTURE(misuse.first);
      CAPTURE(wrote);
      const auto refused = rig.run([&](WriteTxn& txn) -> Result<Bytes> {
        if (wrote) CHECK(txn.table("t").put("k", "after"));
        misuse.second(txn);
        return "all is well";
      });
      REQUIRE_FALSE(refused);
      CHECK(refused.error() == Errc::invalid_argument);
      CHECK(rig.read().table("t").get("k") == "before");
      CHECK(rig.read().table("d").size() == 1);
      CHECK(rig.read().tables().size() == 2);
    }
  }
  // The command's own error comes first, and the next command starts clean.
  const auto own = rig.run([&](WriteTxn& txn) -> Result<Bytes> {
    CHECK(txn.table("t").put("", "v").error() == Errc::invalid_argument);
    return flotilla::fail(Errc::not_found, "own");
  });
  CHECK(own.error() == Errc::not_found);
  CHECK(rig.command("put", {"t", "k", "after"}));
}

TEST_CASE("there are at most 1,000 tables, and the one too many fails its command alone") {
  Rig rig;
  REQUIRE(rig.run([](WriteTxn& txn) -> Result<Bytes> {
    for (std::size_t i = 0; i < flotilla::tables_max; ++i) CHECK(txn.table("t" + std::to_string(i)).put("k", "v"));
    return Bytes();
  }));
  const auto outcomes =
      rig.apply({command_entry(2, "put", {"t0", "k", "w"}), command_entry(3, "put", {"more", "k", "w"}),
                 command_entry(4, "put", {"t999", "k", "w"})})
          .value();
  CHECK(outcomes[0].result);
  CHECK(outcomes[1].result.error() == Errc::too_many_tables);
  CHECK(outcomes[2].result);
  rig.reopen();
  CHECK(rig.read().tables().size() == flotilla::tables_max);
  CHECK(rig.read().table("t999").get("k") == "w");
  CHECK(rig.command("put", {"more", "k", "w"}).error() == Errc::too_many_tables);
}

TEST_CASE("a cursor kept beyond its command or snapshot is dead, not dangerous") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "v"}));
  std::optional<flotilla::Cursor> kept;
  REQUIRE(rig.run([&](WriteTxn& txn) -> Result<Bytes> {
    kept.emplace(txn.table("t").cursor());
    CHECK(kept->first());
    return Bytes();
  }));
  CHECK_FALSE(kept->valid());
  CHECK_FALSE(kept->first());
  CHECK_FALSE(kept->next());
  CHECK(kept->key().empty());
  kept.reset();
  // Also for the next command of the same batch, in the same transaction of LMDB.
  rig.set_body([&](WriteTxn& txn) -> Result<Bytes> {
    if (!kept) {
      kept.emplace(txn.table("t").cursor());
      return kept->first() ? "first" : "none";
    }
    return kept->valid() || kept->first() ? "alive" : "dead";
  });
  const auto outcomes = rig.apply({command_entry(3, "body", {}), command_entry(4, "body", {})}).value();
  CHECK(outcomes[0].result.value() == "first");
  CHECK(outcomes[1].result.value() == "dead");
  kept.reset();
  std::optional<ReadTxn> snapshot(rig.read());
  kept.emplace(snapshot->table("t").cursor());
  CHECK(kept->first());
  snapshot.reset();
  CHECK_FALSE(kept->valid());
  CHECK_FALSE(kept->seek("a"));
}

TEST_CASE("cursors end and move with their owner") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "v"}));
  const ReadTxn snapshot = rig.read();
  auto one = snapshot.table("t").cursor();
  auto two = snapshot.table("t").cursor();
  auto three = snapshot.table("t").cursor();
  CHECK(one.first());
  CHECK(two.first());
  { const auto ended = std::move(two); }
  CHECK(three.last());
  one = std::move(three);
  CHECK(one.valid());
  CHECK_FALSE(one.next());
  CHECK_FALSE(one.previous());
}

TEST_SUITE_END();
