#include "flotilla/typed.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <map>

#include "state/support.hpp"

using namespace state_test;
using flotilla::add_typed;
namespace typed = flotilla::typed;

namespace {

struct Point {
  int x = 0;
  std::string label;
  MSGPACK_DEFINE(x, label)
};

Result<std::string> shout(WriteTxn&, const std::string& text) {
  return text + "!";
}

int runs = 0;

Commands typed_commands() {
  Commands commands = test_commands();
  add_typed(commands, "transfer",
            [](WriteTxn& txn, std::string_view from, std::string_view to, std::int64_t cents) -> Result<std::int64_t> {
              ++runs;
              auto accounts = txn.table("accounts");
              const auto balance = [&](std::string_view who) {
                return std::stoll(std::string(accounts.get(who).value_or("0")));
              };
              if (cents < 0) return flotilla::fail(Errc::invalid_argument, "negative");
              const auto left = balance(from) - cents;
              static_cast<void>(accounts.put(from, std::to_string(left)));
              static_cast<void>(accounts.put(to, std::to_string(balance(to) + cents)));
              return left;
            });
  add_typed(commands, "nothing", [](WriteTxn& txn) -> Result<void> {
    static_cast<void>(txn.table("t").put("nothing", "ran"));
    return {};
  });
  add_typed(commands, "shout", &shout);
  add_typed(commands, "echo",
            [](WriteTxn&, bool flag, double number, std::optional<int> maybe, std::vector<std::string_view> words,
               const std::map<std::string, Point>& points) mutable
            -> Result<std::tuple<bool, double, std::optional<int>, std::vector<std::string>, Point>> {
              return std::tuple(flag, number, maybe, std::vector<std::string>(words.begin(), words.end()),
                                points.at("here"));
            });
  add_typed(commands, "small", [](WriteTxn&, std::int8_t number) -> Result<int> { return number; });
  add_typed(commands, "nested", [](WriteTxn&, const msgpack::object&) -> Result<int> { return 1; });
  return commands;
}

Result<Bytes> call(Rig& rig, std::string_view name, std::span<const std::string_view> args) {
  return rig.command(name, {args.begin(), args.end()});
}

}  // namespace

TEST_SUITE_BEGIN("state.typed");

TEST_CASE("typed arguments and results travel as they are") {
  Rig rig(typed_commands());
  CHECK(typed::result<std::int64_t>(call(rig, "transfer", typed::arguments("alice", "bob", 500))).value() == -500);
  CHECK(rig.read().table("accounts").get("bob") == "500");
  CHECK(typed::result<std::string>(call(rig, "shout", typed::arguments(std::string("a\0b", 3)))).value() ==
        std::string("a\0b!", 4));
  CHECK(typed::result<void>(call(rig, "nothing", typed::arguments())));
  CHECK(rig.read().table("t").get("nothing") == "ran");
  using Echo = std::tuple<bool, double, std::optional<int>, std::vector<std::string>, Point>;
  const std::map<std::string, Point> points{{"here", {7, "seven"}}};
  const auto echo = typed::result<Echo>(call(
      rig, "echo", typed::arguments(true, 1.5, std::optional<int>(), std::vector<std::string>{"one", "two"}, points)));
  REQUIRE(echo);
  CHECK(std::get<0>(*echo));
  CHECK(std::get<1>(*echo) == 1.5);
  CHECK_FALSE(std::get<2>(*echo));
  CHECK(std::get<3>(*echo) == std::vector<std::string>{"one", "two"});
  CHECK(std::get<4>(*echo).label == "seven");
}

TEST_CASE("a wrong number or type of arguments is refused before the command runs") {
  Rig rig(typed_commands());
  runs = 0;
  const auto refused = [&](std::string_view name, std::span<const std::string_view> args) {
    const auto called = call(rig, name, args);
    REQUIRE_FALSE(called);
    CHECK(called.error() == Errc::invalid_argument);
    return called.error().message();
  };
  refused("transfer", typed::arguments());
  refused("transfer", typed::arguments("alice", "bob"));
  refused("transfer", typed::arguments("alice", "bob", 1, 2));
  CHECK(refused("transfer", typed::arguments("alice", 5, 1)).find("argument 2") != std::string::npos);
  CHECK(refused("transfer", typed::arguments("alice", "bob", "1")).find("argument 3") != std::string::npos);
  refused("transfer", typed::arguments("alice", "bob", std::numeric_limits<std::uint64_t>::max()));
  refused("small", typed::arguments(128));
  refused("small", typed::arguments(-129));
  refused("nothing", typed::arguments(1));
  CHECK(runs == 0);
  CHECK(rig.read().tables().empty());
  CHECK(typed::result<int>(call(rig, "small", typed::arguments(-128))).value() == -128);
}

TEST_CASE("malformed and oversized values are refused, whatever they claim") {
  Rig rig(typed_commands());
  const auto refused = [&](std::string_view name, std::string_view arg) {
    const auto called = rig.command(name, {arg});
    return !called && called.error() == Errc::invalid_argument;
  };
  CHECK(refused("small", ""));
  CHECK(refused("small", "\xc1"));                           // never used
  CHECK(refused("small", std::string_view("\x01\x02", 2)));  // two values
  CHECK(refused("shout", std::string_view("\xdb\xff\xff\xff\xff", 5)));
  CHECK(refused("shout", std::string_view("\xa5"
                                          "abc",
                                          4)));
  CHECK(refused("nested", std::string_view("\xdd\xff\xff\xff\xff", 5)));  // an array of 4 billion
  CHECK(refused("nested", std::string_view("\xdf\xff\xff\xff\xff", 5)));  // a map of as many
  CHECK(refused("nested", std::string_view("\xdd\x00\x01\x00\x00", 5)));  // of 65,536, in five bytes
  CHECK(refused("nested", std::string(100, '\x91')));
  CHECK(refused("nested", std::string(typed::depth_max + 1, '\x91') + '\x01'));
  CHECK_FALSE(refused("nested", std::string(typed::depth_max - 1, '\x91') + '\x01'));
  // Every cut of a good value.
  const auto args = typed::arguments(std::map<std::string, std::vector<int>>{{"a", {1, 2, 300}}, {"b", {70'000}}});
  const std::string_view whole = args.views()[0];
  for (std::size_t cut = 0; cut < whole.size(); ++cut) CHECK(refused("nested", whole.substr(0, cut)));
  CHECK(rig.command("nested", {whole}));
}

TEST_CASE("a typed command's own errors and exceptions are those of any command") {
  Rig rig(typed_commands());
  const auto negative = typed::result<std::int64_t>(call(rig, "transfer", typed::arguments("a", "b", -1)));
  CHECK(negative.error() == Errc::invalid_argument);
  CHECK(negative.error().message() == "negative");
  const auto missing = call(
      rig, "echo",
      typed::arguments(true, 1.5, std::optional<int>(5), std::vector<std::string>(), std::map<std::string, Point>()));
  CHECK(missing.error() == Errc::command_failed);
}

TEST_CASE("a result of another type than wanted is invalid_argument") {
  Rig rig(typed_commands());
  const auto called = call(rig, "shout", typed::arguments("a"));
  CHECK(typed::result<int>(called).error() == Errc::invalid_argument);
  CHECK(typed::result<void>(called).error() == Errc::invalid_argument);
  CHECK(typed::result<std::string>(Bytes()).error() == Errc::invalid_argument);
  CHECK(typed::result<std::string>(Bytes(*called + "x")).error() == Errc::invalid_argument);
}

TEST_CASE("packed arguments may be moved") {
  auto args = typed::arguments("a", std::string(100, 'b'), 3);
  const auto moved = std::move(args);
  Rig rig(typed_commands());
  CHECK(call(rig, "transfer", moved));
  CHECK(rig.read().table("accounts").contains(std::string(100, 'b')));
}

TEST_SUITE_END();
