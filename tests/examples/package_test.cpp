#include "package.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "flotilla/error.hpp"

using namespace catalog;
using flotilla::Errc;

namespace {

std::vector<Alternatives> relations(std::string_view field) {
  return parse_relations(field).value();
}

const std::string libc =
    "Package: libc6\n"
    "Status: install ok installed\n"
    "Priority: optional\n"
    "Section: libs\n"
    "Architecture: amd64\n"
    "Multi-Arch: same\n"
    "Source: glibc\n"
    "Version: 2.36-9+deb12u10\n"
    "Depends: libgcc-s1, libcrypt1 (>= 1:4.4.10-10)\n"
    "Pre-Depends: dpkg (>= 1.19.1) | dpkg-compat:any\n"
    "Conffiles:\n"
    " /etc/ld.so.conf.d/x86_64-linux-gnu.conf d4e7a7b88a71b5ffd9e2644e71a0cfab\n"
    "Description: GNU C Library: Shared libraries\n"
    " Contains the standard libraries that are used by nearly all programs on\n"
    " the system.\n"
    " .\n"
    " Depends: not a field, for it is indented\n";

}  // namespace

TEST_SUITE("examples.package") {
  TEST_CASE("a record of dpkg's status file yields its fields and relations") {
    const Package package = parse_package(libc).value();
    CHECK(package.name == "libc6");
    CHECK(package.architecture == "amd64");
    CHECK(package.version == "2.36-9+deb12u10");
    CHECK(package.section == "libs");
    REQUIRE(package.depends.size() == 2);
    CHECK(package.depends[0] == Alternatives{{"libgcc-s1", "", "", "", "", ""}});
    CHECK(package.depends[1] == Alternatives{{"libcrypt1", "", ">=", "1:4.4.10-10", "", ""}});
    REQUIRE(package.pre_depends.size() == 1);
    CHECK(package.pre_depends[0] ==
          Alternatives{{"dpkg", "", ">=", "1.19.1", "", ""}, {"dpkg-compat", "any", "", "", "", ""}});
  }

  TEST_CASE("field names do not depend on case, and a folded field is one field") {
    const Package package = parse_package("PACKAGE: a\ndepends: b,\n c (= 1),\n\td\n").value();
    CHECK(package.name == "a");
    REQUIRE(package.depends.size() == 3);
    CHECK(package.depends[1][0].version == "1");
    CHECK(package.depends[2][0].name == "d");
  }

  TEST_CASE("every form of a relation that Debian policy names is read") {
    struct Case {
      std::string_view text;
      Relation relation;
    };
    for (const Case& one : std::vector<Case>{
             {"g++", {"g++", "", "", "", "", ""}},
             {"  lib.a+b-1  ", {"lib.a+b-1", "", "", "", "", ""}},
             {"perl:any", {"perl", "any", "", "", "", ""}},
             {"a (<< 1)", {"a", "", "<<", "1", "", ""}},
             {"a (<= 1)", {"a", "", "<=", "1", "", ""}},
             {"a (= 1:2.3-4~bpo+1)", {"a", "", "=", "1:2.3-4~bpo+1", "", ""}},
             {"a (>=1)", {"a", "", ">=", "1", "", ""}},
             {"a(>> 1)", {"a", "", ">>", "1", "", ""}},
             {"a (< 1)", {"a", "", "<=", "1", "", ""}},
             {"a ( > 1 )", {"a", "", ">=", "1", "", ""}},
             {"python3:any (>= 3.5) [amd64 !i386] <!nocheck> <cross>",
              {"python3", "any", ">=", "3.5", "amd64 !i386", "!nocheck | cross"}},
         }) {
      CAPTURE(one.text);
      const auto parsed = relations(one.text);
      REQUIRE(parsed.size() == 1);
      CHECK(parsed[0] == Alternatives{one.relation});
    }
  }

  TEST_CASE("commas join and bars offer") {
    const auto parsed = relations("a | b (>= 2) | c:any, d");
    REQUIRE(parsed.size() == 2);
    REQUIRE(parsed[0].size() == 3);
    CHECK(parsed[0][1].comparison == ">=");
    CHECK(parsed[1][0].name == "d");
    CHECK(relations("").empty());
    CHECK(relations(" \n ").empty());
  }

  TEST_CASE("a malformed relation is refused, and the message shows it") {
    for (const std::string_view text : {",",
                                        "a,",
                                        ", a",
                                        "a || b",
                                        "a |",
                                        "| a",
                                        "a b",
                                        "(>= 1)",
                                        "a (1)",
                                        "a (>= )",
                                        "a (>=",
                                        "a (== 1)",
                                        "a (=> 1)",
                                        "a (>= 1 2)",
                                        "a )",
                                        "a [amd64",
                                        "a <x",
                                        "a:",
                                        "A",
                                        "a_b",
                                        "-a",
                                        ".",
                                        "a (>= 1) (<< 2)"}) {
      CAPTURE(text);
      const auto parsed = parse_relations(text);
      REQUIRE_FALSE(parsed.has_value());
      CHECK(parsed.error() == Errc::invalid_argument);
      CHECK(parsed.error().message().find("dependency \"") != std::string::npos);
    }
  }

  TEST_CASE("a malformed record is refused") {
    for (const std::string_view text :
         {"", "\n", "Version: 1\n", "Package:\n", "Package: A b\n", "Package: a\nPackage: b\n", " Package: a\n",
          "Package: a\nno colon here\n", "Package: a\n: nothing\n", "Package: a\nTwo words: x\n",
          "Package: a\n\nVersion: 1\n", "Package: a\nDepends: (\n", "Package: a\nPre-Depends: b |\n"}) {
      CAPTURE(text);
      const auto parsed = parse_package(text);
      REQUIRE_FALSE(parsed.has_value());
      CHECK(parsed.error() == Errc::invalid_argument);
    }
  }

  TEST_CASE("a record cut anywhere is read or refused, never misread into another package") {
    for (std::size_t size = 0; size < libc.size(); ++size) {
      CAPTURE(size);
      const auto parsed = parse_package(std::string_view(libc).substr(0, size));
      if (parsed) CHECK(std::string("libc6").rfind(parsed->name, 0) == 0);
    }
  }

  TEST_CASE("a record survives any one damaged byte without harm") {
    for (std::size_t at = 0; at < libc.size(); ++at) {
      for (const char byte : {'\0', '\n', ':', ' ', '(', '|', '\xff'}) {
        std::string damaged = libc;
        damaged[at] = byte;
        const auto parsed = parse_package(damaged);
        if (parsed) CHECK_FALSE(parsed->name.empty());
      }
    }
  }

  TEST_CASE("stanzas are separated by blank lines, also several, and know their line") {
    const std::string text = "\n \nPackage: a\nX: 1\n\n\t\n\nPackage: b\n\nPackage: c";
    Stanzas stanzas(text);
    CHECK(stanzas.next() == "Package: a\nX: 1\n");
    CHECK(stanzas.line() == 3);
    CHECK(stanzas.next() == "Package: b\n");
    CHECK(stanzas.line() == 8);
    CHECK(stanzas.next() == "Package: c");
    CHECK(stanzas.line() == 10);
    CHECK_FALSE(stanzas.next().has_value());
    CHECK_FALSE(Stanzas("").next().has_value());
    CHECK_FALSE(Stanzas("\n\n").next().has_value());
  }
}
