#include "net/address.hpp"

#include <doctest/doctest.h>

using namespace flotilla;
using namespace flotilla::net;

TEST_SUITE_BEGIN("net.address");

TEST_CASE("host and port are told apart, with brackets around IPv6") {
  CHECK(parse_address("127.0.0.1:7481").value() == HostPort{"127.0.0.1", 7481});
  CHECK(parse_address("localhost:0").value() == HostPort{"localhost", 0});
  CHECK(parse_address("[::1]:65535").value() == HostPort{"::1", 65535});
  CHECK(parse_address(":80").value() == HostPort{"", 80});
  CHECK(format_address("::1", 1) == "[::1]:1");
  CHECK(format_address("a", 1) == "a:1");
  CHECK(host_of("[::1]:80") == "[::1]");
}

TEST_CASE("what is no address is refused") {
  for (const std::string_view bad : {"", "host", "host:", "host:65536", "host:-1", "host:1x", "host: 1", "::1:80",
                                     "[::1", "[::1]80", "[]:1", "ho st:1", "h/p:1", "host:99999999999999999999"}) {
    CAPTURE(bad);
    CHECK(parse_address(bad).error() == Errc::invalid_argument);
  }
  CHECK_FALSE(parse_address(std::string(300, 'a') + ":1"));
}

TEST_SUITE_END();
