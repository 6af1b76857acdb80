#include "flotilla/standard.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/local_tables.hpp"

using namespace flotilla;
using flotilla::test::LocalTables;
using namespace std::string_literals;

namespace {

struct Standard : LocalTables {
  Standard() : LocalTables(standard_commands()) {}

  Bytes ok(std::string_view name, std::vector<std::string_view> args) { return run(name, std::move(args)).value(); }
  std::optional<std::string> get(std::string_view key) {
    const ReadTxn snapshot = read();
    const auto value = snapshot.table("t").get(key);
    return value ? std::optional<std::string>(*value) : std::nullopt;
  }
};

const Bytes yes = "\1"s;
const Bytes no = "\0"s;

}  // namespace

TEST_SUITE("lib.standard") {
  TEST_CASE("put stores and replaces a value, and returns nothing") {
    Standard db;
    CHECK(db.ok("put", {"t", "k", "a"}).empty());
    CHECK(db.get("k") == "a");
    CHECK(db.ok("put", {"t", "k", ""}).empty());
    CHECK(db.get("k") == "");
  }

  TEST_CASE("put_if_absent puts once and says which call did") {
    Standard db;
    CHECK(db.ok("put_if_absent", {"t", "k", "first"}) == yes);
    CHECK(db.ok("put_if_absent", {"t", "k", "second"}) == no);
    CHECK(db.get("k") == "first");
  }

  TEST_CASE("cas with an expected value requires the key and returns the value after it") {
    Standard db;
    const auto absent = db.run("cas", {"t", "k", "", "new"});
    REQUIRE_FALSE(absent.has_value());
    CHECK(absent.error() == Errc::not_found);
    CHECK_FALSE(db.get("k").has_value());

    db.ok("put", {"t", "k", "90"});
    CHECK(db.ok("cas", {"t", "k", "80", "70"}) == "90");
    CHECK(db.get("k") == "90");
    CHECK(db.ok("cas", {"t", "k", "90", "70"}) == "70");
    CHECK(db.get("k") == "70");
  }

  TEST_CASE("cas without an expected value requires that the key is absent") {
    Standard db;
    CHECK(db.ok("cas", {"t", "k", "first"}) == "first");
    CHECK(db.ok("cas", {"t", "k", "second"}) == "first");
    CHECK(db.get("k") == "first");
  }

  TEST_CASE("an empty value is a value: expecting it is not expecting absence") {
    Standard db;
    db.ok("put", {"t", "k", ""});
    CHECK(db.ok("cas", {"t", "k", "new"}) == "");
    CHECK(db.ok("cas", {"t", "k", "", "new"}) == "new");
  }

  TEST_CASE("compare_and_swap tells a swap from a key that already had the new value") {
    Standard db;
    db.ok("put", {"t", "counter", "5"});
    CHECK(decode_swap(db.run("compare_and_swap", {"t", "counter", "5", "6"})).value() == Swap{true, "6"});
    CHECK(decode_swap(db.run("compare_and_swap", {"t", "counter", "5", "6"})).value() == Swap{false, "6"});
    CHECK(decode_swap(db.run("compare_and_swap", {"t", "none", "5", "6"})).value() == Swap{false, std::nullopt});
    CHECK(decode_swap(db.run("compare_and_swap", {"t", "none", "0"})).value() == Swap{true, "0"});
    CHECK(decode_swap(db.run("compare_and_swap", {"t", "none", "1"})).value() == Swap{false, "0"});
  }

  TEST_CASE("compare_and_remove removes only the expected value") {
    Standard db;
    CHECK(db.ok("compare_and_remove", {"t", "k", "a"}) == no);
    db.ok("put", {"t", "k", "a"});
    CHECK(db.ok("compare_and_remove", {"t", "k", "b"}) == no);
    CHECK(db.get("k") == "a");
    CHECK(db.ok("compare_and_remove", {"t", "k", "a"}) == yes);
    CHECK_FALSE(db.get("k").has_value());
  }

  TEST_CASE("remove succeeds either way and says whether something was there") {
    Standard db;
    CHECK(db.ok("remove", {"t", "k"}) == no);
    CHECK(db.read().tables().empty());  // a removal makes no table
    db.ok("put", {"t", "k", "a"});
    CHECK(db.ok("remove", {"t", "k"}) == yes);
    CHECK(db.ok("remove", {"t", "k"}) == no);
  }

  TEST_CASE("noop changes nothing") {
    Standard db;
    CHECK(db.ok("noop", {}).empty());
    CHECK(db.read().tables().empty());
  }

  TEST_CASE("every wrong number of arguments is refused and changes nothing") {
    Standard db;
    db.ok("put", {"t", "k", "v"});
    struct Case {
      std::string_view name;
      std::size_t least, most;
    };
    for (const Case& one :
         {Case{"put", 3, 3}, Case{"put_if_absent", 3, 3}, Case{"cas", 3, 4}, Case{"compare_and_swap", 3, 4},
          Case{"compare_and_remove", 3, 3}, Case{"remove", 2, 2}, Case{"noop", 0, 0}}) {
      for (std::size_t count = 0; count <= 6; ++count) {
        if (count >= one.least && count <= one.most) continue;
        CAPTURE(one.name);
        CAPTURE(count);
        const std::vector<std::string_view> args{"t", "k", "v", "w", "x", "y"};
        const auto result = db.run(one.name, {args.begin(), args.begin() + static_cast<std::ptrdiff_t>(count)});
        REQUIRE_FALSE(result.has_value());
        CHECK(result.error() == Errc::invalid_argument);
        CHECK(result.error().message().find(std::to_string(count)) != std::string::npos);
      }
    }
    CHECK(db.get("k") == "v");
    CHECK(db.read().table("t").size() == 1);
  }

  TEST_CASE("a key or table name over its limit is refused, not stored") {
    Standard db;
    const std::string long_key(key_bytes_max + 1, 'k');
    const std::string long_name(table_name_bytes_max + 1, 't');
    for (const std::vector<std::string_view>& args : {std::vector<std::string_view>{"t", long_key, "v"},
                                                      {"t", "", "v"},
                                                      {long_name, "k", "v"},
                                                      {"", "k", "v"},
                                                      {"__reserved", "k", "v"}}) {
      CAPTURE(args[0]);
      for (const std::string_view name : {"put", "put_if_absent", "cas", "compare_and_swap"}) {
        const auto result = db.run(name, args);
        REQUIRE_FALSE(result.has_value());
        CHECK(result.error() == Errc::invalid_argument);
      }
    }
    CHECK(db.read().tables().empty());
  }

  TEST_CASE("zero bytes are like any other") {
    Standard db;
    const std::string key("a\0b", 3);
    const std::string value("\0\0\1", 3);
    db.ok("put", {"t", key, value});
    CHECK(db.get(key) == value);
    CHECK(db.ok("cas", {"t", key, value, "plain"}) == "plain");
  }

  TEST_CASE("results that no standard command returns are reported, not misread") {
    for (const Bytes& bytes : {""s, "\2"s, "\0\0"s, "yes"s}) CHECK(decode_flag(bytes).error() == Errc::command_failed);
    for (const Bytes& bytes : {""s, "\3x"s, "\2x"s}) CHECK(decode_swap(bytes).error() == Errc::command_failed);
    CHECK(decode_flag(fail(Errc::timeout, "late")).error() == Errc::timeout);
    CHECK(decode_swap(fail(Errc::timeout, "late")).error() == Errc::timeout);
  }
}
