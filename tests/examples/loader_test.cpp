#include "loader.hpp"

#include <fstream>

#include <doctest/doctest.h>

#include "support/temp_dir.hpp"

using namespace catalog;
using flotilla::Errc;

namespace {

Input read_text(const std::string& text) {
  const flotilla::test::TempDir directory;
  const std::string path = directory.path() / "input";
  std::ofstream(path) << text;
  return read_input(path).value();
}

}  // namespace

TEST_SUITE("examples.loader") {
  TEST_CASE("a file with Status fields is dpkg's own, any other an archive's index") {
    CHECK(read_text("Package: a\nStatus: install ok installed\nVersion: 1\n").records.at(0).key == "a");
    CHECK(read_text("Package: a\nVersion: 1\n").records.at(0).key == "a 1");
  }

  TEST_CASE("malformed records are left out and named by their line") {
    const Input input = read_text("Package: a\n\nnonsense\n\nPackage: b\n");
    CHECK(input.records.size() == 2);
    REQUIRE(input.malformed.size() == 1);
    CHECK(input.malformed[0].rfind("line 3: ", 0) == 0);
  }

  TEST_CASE("a file without records, or none at all, is an error") {
    CHECK(read_input("/nonexistent/status").error() == Errc::io_error);
    CHECK(read_input("/dev/null").error() == Errc::invalid_argument);
  }

  TEST_CASE("a missing, a doubled and a foreign record are found") {
    const std::map<std::string, Ledger> ledger{{"a", {1, 0}}, {"b", {2, 0}}, {"c", {1, 1}}};
    CHECK_FALSE(compare(ledger, {{"a", 1}, {"b", 2}, {"c", 1}}).has_value());
    CHECK_FALSE(compare(ledger, {{"a", 1}, {"b", 2}, {"c", 2}}).has_value());
    CHECK(compare(ledger, {{"b", 2}, {"c", 1}}).has_value());
    CHECK(compare(ledger, {{"a", 2}, {"b", 2}, {"c", 1}}).has_value());
    CHECK(compare(ledger, {{"a", 1}, {"b", 1}, {"c", 1}}).has_value());
    CHECK(compare(ledger, {{"a", 1}, {"b", 2}, {"c", 3}}).has_value());
    CHECK(compare(ledger, {{"a", 1}, {"b", 2}, {"c", 1}, {"d", 1}}).has_value());
  }
}
