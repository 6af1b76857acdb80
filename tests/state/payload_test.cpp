#include "state/payload.hpp"

#include <doctest/doctest.h>

#include "state/support.hpp"

using namespace flotilla::state;

namespace {

std::string encoded(const CallId& call, std::uint64_t acknowledged_below, std::string_view name,
                    std::span<const std::string_view> args) {
  return std::string(encode_command(call, acknowledged_below, name, args).view());
}

}  // namespace

TEST_SUITE_BEGIN("state.payload");

TEST_CASE("a command comes back as it was encoded") {
  const std::string long_arg(100'000, 'x');
  const std::vector<std::string_view> args{"", "a", std::string_view("\0z", 2), long_arg};
  const std::string bytes = encoded({7, 9}, 4, "transfer", args);
  CHECK(bytes.size() == encoded_command_bytes("transfer", args));
  const auto command = decode_command(bytes);
  REQUIRE(command);
  CHECK(command->call == CallId{7, 9});
  CHECK(command->acknowledged_below == 4);
  CHECK(command->name == "transfer");
  CHECK(command->args == args);
}

TEST_CASE("the bytes of the payloads are those of FORMAT.md") {
  const std::vector<std::string_view> args{"k", ""};
  CHECK(state_test::to_hex(encoded({0x0102030405060708, 2}, 1, "put", args)) ==
        "0807060504030201"
        "0200000000000000"
        "0100000000000000"
        "03000000707574"
        "02000000"
        "010000006b"
        "00000000");
  CHECK(state_test::to_hex(encode_session({flotilla::NodeId{1}, 2, 3, {"cas", "put"}})) ==
        "010000000000000002000000000000000300000000000000"
        "02000000"
        "03000000636173"
        "03000000707574");
}

TEST_CASE("a payload cut anywhere, or with a byte too many, is refused") {
  const std::vector<std::string_view> args{"key", "value"};
  const std::string command = encoded({1, 1}, 1, "put", args);
  const std::string session = encode_session({flotilla::NodeId{1}, 2, 3, {"cas", "put"}});
  for (std::size_t cut = 0; cut < command.size(); ++cut) {
    CAPTURE(cut);
    CHECK_FALSE(decode_command(command.substr(0, cut)));
  }
  for (std::size_t cut = 0; cut < session.size(); ++cut) {
    CAPTURE(cut);
    CHECK_FALSE(decode_session(session.substr(0, cut)));
  }
  CHECK_FALSE(decode_command(command + "x"));
  CHECK_FALSE(decode_session(session + "x"));
  CHECK(decode_command(command));
  CHECK(decode_session(session));
}

TEST_CASE("a session's commands are sorted, distinct, well-formed and bounded, or it is refused") {
  const auto decoded = [](std::vector<std::string> names) {
    return decode_session(encode_session({flotilla::NodeId{1}, 2, 3, std::move(names)}));
  };
  CHECK(decoded({})->commands.empty());
  CHECK(decoded({"a", "b"})->commands == std::vector<std::string>{"a", "b"});
  CHECK_FALSE(decoded({"b", "a"}));
  CHECK_FALSE(decoded({"a", "a"}));
  CHECK_FALSE(decoded({""}));
  CHECK_FALSE(decoded({std::string(129, 'n')}));
  std::vector<std::string> many;
  for (int i = 10'000; i < 10'000 + static_cast<int>(flotilla::Commands::commands_max) + 1; ++i)
    many.push_back(std::to_string(i));
  CHECK_FALSE(decoded(many));
  many.pop_back();
  CHECK(decoded(many));
}

TEST_CASE("the name of a command is found without decoding it") {
  CHECK(command_name(encoded({1, 2}, 3, "transfer", {})) == "transfer");
  CHECK(command_name("short").empty());
}

TEST_CASE("names of 1 to 128 bytes and up to 65,536 arguments are allowed, and no more") {
  CHECK(decode_command(encoded({}, 0, std::string(128, 'n'), {})));
  CHECK_FALSE(decode_command(encoded({}, 0, std::string(129, 'n'), {})));
  CHECK_FALSE(decode_command(encoded({}, 0, "", {})));
  std::vector<std::string_view> args(65'536);
  CHECK(decode_command(encoded({}, 0, "n", args)));
  args.emplace_back();
  CHECK_FALSE(decode_command(encoded({}, 0, "n", args)));
}

TEST_CASE("a count that the payload cannot hold is refused before memory is taken for it") {
  std::string bytes = encoded({}, 0, "n", {});
  for (int i = 1; i <= 4; ++i) bytes[bytes.size() - static_cast<std::size_t>(i)] = static_cast<char>(0xff);
  CHECK_FALSE(decode_command(bytes));
  bytes.replace(bytes.size() - 4, 4, std::string("\x01\x00\x01\x00", 4));  // 65,537
  CHECK_FALSE(decode_command(bytes + std::string(4 * 65'537, '\0')));
}

TEST_SUITE_END();
