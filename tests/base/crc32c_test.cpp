#include "base/crc32c.hpp"

#include <string>

#include <doctest/doctest.h>

using flotilla::crc32c;
using flotilla::crc32c_portable;

TEST_SUITE_BEGIN("base.crc32c");

TEST_CASE("the checksum has the published check values") {
  CHECK(crc32c("123456789") == 0xE3069283u);
  CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AAu);
  CHECK(crc32c(std::string(32, '\xff')) == 0x62A8AB43u);
  CHECK(crc32c("") == 0u);
}

TEST_CASE("both paths agree at every length and alignment") {
  std::string bytes;
  for (int i = 0; i < 200; ++i) bytes.push_back(static_cast<char>(i * 37 + 11));
  for (std::size_t offset = 0; offset < 9; ++offset) {
    for (std::size_t count = 0; offset + count <= bytes.size(); ++count) {
      const std::string_view part = std::string_view(bytes).substr(offset, count);
      CAPTURE(offset);
      CAPTURE(count);
      REQUIRE(crc32c(part) == crc32c_portable(part));
    }
  }
}

TEST_CASE("a checksum continues over parts") {
  CHECK(crc32c("456789", crc32c("123")) == crc32c("123456789"));
  CHECK(crc32c_portable("456789", crc32c_portable("123")) == crc32c("123456789"));
}

TEST_SUITE_END();
