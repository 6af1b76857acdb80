#include "catalog.hpp"

#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "support/local_tables.hpp"

using namespace catalog;
using flotilla::Errc;
using flotilla::ReadTxn;
using flotilla::test::LocalTables;

namespace {

struct CatalogTables : LocalTables {
  CatalogTables() : LocalTables(commands()) {}

  Upserted upsert(std::string_view record, std::string_view identity = "installed") {
    return decode_upserted(run("upsert_package", {identity, record}).value()).value();
  }
};

using Pairs = std::set<std::pair<std::string, std::string>>;

Pairs pairs(const ReadTxn& txn, std::string_view table) {
  Pairs all;
  for (const auto& [key, value] : txn.table(table).all()) all.emplace(key, value);
  return all;
}

/// What the tables must hold, worked out from the records alone.
struct Model {
  std::map<std::string, std::pair<std::string, std::uint64_t>> records;  // key -> record, revision

  void check(const ReadTxn& txn) const {
    Pairs packages, revisions, sections, dependencies;
    for (const auto& [key, entry] : records) {
      const Package package = parse_package(entry.first).value();
      packages.emplace(key, entry.first);
      revisions.emplace(key, std::to_string(entry.second));
      if (!package.section.empty()) sections.emplace(package.section, key);
      for (const auto& field : {package.depends, package.pre_depends}) {
        for (const auto& alternatives : field) {
          for (const auto& relation : alternatives) dependencies.emplace(relation.name, key);
        }
      }
    }
    CHECK(pairs(txn, "packages") == packages);
    CHECK(pairs(txn, "revisions") == revisions);
    CHECK(pairs(txn, "by_section") == sections);
    CHECK(pairs(txn, "by_dependency") == dependencies);
  }
};

class RecordMaker {
 public:
  explicit RecordMaker(std::uint64_t seed) : random_(seed) {}

  std::string name() { return "p" + std::to_string(below(12)); }
  std::string record() {
    std::string text = "Package: " + name() + "\nVersion: " + std::to_string(below(3)) + "\n";
    if (below(4) != 0) text += "Architecture: " + std::string(below(2) == 0 ? "amd64" : "all") + "\n";
    if (below(5) != 0) text += "Section: s" + std::to_string(below(4)) + "\n";
    if (below(3) != 0) text += "Depends: " + relations() + "\n";
    if (below(3) == 0) text += "Pre-Depends: " + relations() + "\n";
    return text;
  }
  std::size_t below(std::size_t limit) { return random_() % limit; }

 private:
  std::string relations() {
    std::string text;
    for (std::size_t count = 1 + below(4); count > 0; --count) {
      text += name();
      if (below(3) == 0) text += " (>= " + std::to_string(below(9)) + ")";
      if (count > 1) text += below(3) == 0 ? " | " : ", ";
    }
    return text;
  }
  std::mt19937_64 random_;
};

}  // namespace

TEST_SUITE("examples.catalog") {
  TEST_CASE("an installed package is known by name and architecture, one of an archive by its version too") {
    const Package package = parse_package("Package: a\nArchitecture: i386\nVersion: 1\n").value();
    CHECK(record_key(package, Identity::installed) == "a:i386");
    CHECK(record_key(package, Identity::archive) == "a:i386 1");
    CHECK(record_key(parse_package("Package: a\n").value(), Identity::archive) == "a");
  }

  TEST_CASE("a record answers by key, by name, by section and by what it depends on") {
    CatalogTables db;
    CHECK(db.upsert("Package: libc6\nArchitecture: amd64\nVersion: 2\nSection: libs\n").key == "libc6:amd64");
    db.upsert("Package: libc6\nArchitecture: i386\nVersion: 2\nSection: libs\n");
    db.upsert("Package: libc6-dev\nArchitecture: amd64\nSection: libdevel\nDepends: libc6 (= 2), a | libc-x\n");
    db.upsert("Package: bash\nArchitecture: amd64\nSection: shells\nPre-Depends: libc6 (>= 1)\nDepends: libc6\n");

    const ReadTxn snapshot = db.read();
    const Catalog catalog(snapshot);
    CHECK(catalog.size() == 4);
    CHECK(catalog.find("libc6:i386").value().section == "libs");
    CHECK_FALSE(catalog.find("libc6").has_value());
    CHECK(catalog.named("libc6") == std::vector<std::string>{"libc6:amd64", "libc6:i386"});
    CHECK(catalog.in_section("libs") == std::vector<std::string>{"libc6:amd64", "libc6:i386"});
    CHECK(catalog.dependents("libc6") == std::vector<std::string>{"bash:amd64", "libc6-dev:amd64"});
    CHECK(catalog.dependents("libc-x") == std::vector<std::string>{"libc6-dev:amd64"});
    CHECK(catalog.dependents("nothing").empty());
  }

  TEST_CASE("a changed record leaves no index entry of the old one behind") {
    CatalogTables db;
    db.upsert("Package: a\nSection: old\nDepends: gone, stays\n");
    CHECK(db.upsert("Package: a\nSection: new\nDepends: stays, comes\n").revision == 2);
    const ReadTxn snapshot = db.read();
    const Catalog catalog(snapshot);
    CHECK(catalog.in_section("old").empty());
    CHECK(catalog.in_section("new") == std::vector<std::string>{"a"});
    CHECK(catalog.dependents("gone").empty());
    CHECK(catalog.dependents("stays") == std::vector<std::string>{"a"});
    CHECK(catalog.dependents("comes") == std::vector<std::string>{"a"});
    CHECK(catalog.size() == 1);
  }

  TEST_CASE("a refused upsert changes nothing") {
    CatalogTables db;
    db.upsert("Package: a\nSection: s\n");
    const std::uint64_t before = content_hash(db.read());
    CHECK(db.run("upsert_package", {"installed", "Package: b\nDepends: (\n"}).error() == Errc::invalid_argument);
    CHECK(db.run("upsert_package", {"unheard-of", "Package: b\n"}).error() == Errc::invalid_argument);
    CHECK(db.run("upsert_package", {"installed"}).error() == Errc::invalid_argument);
    CHECK(db.run("upsert_package", {"installed", "Package: a\n", "0"}).error() == Errc::command_failed);
    CHECK(db.run("upsert_package", {"installed", "Package: a\n", "x"}).error() == Errc::command_failed);
    CHECK(db.run("remove_package", {}).error() == Errc::invalid_argument);
    // The section is a key of the index; one over the limit fails after the record itself was written.
    const std::string far = "Package: a\nSection: " + std::string(600, 's') + "\nDepends: b\n";
    CHECK(db.run("upsert_package", {"installed", far}).error() == Errc::invalid_argument);
    CHECK(content_hash(db.read()) == before);
    CHECK(db.run("upsert_package", {"installed", "Package: a\n", "1"}).value() == "a\n2");
  }

  TEST_CASE("the indexes are what a rebuild from the records gives, after any sequence of changes") {
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
      CAPTURE(seed);
      CatalogTables db;
      Model model;
      RecordMaker make(seed);
      for (int step = 0; step < 300; ++step) {
        if (make.below(4) == 0) {
          const std::string key = make.name() + (make.below(2) == 0 ? ":amd64" : "");
          CHECK(db.run("remove_package", {key}).value() == (model.records.erase(key) == 1 ? "removed" : "absent"));
        } else {
          const std::string record = make.record();
          const Upserted done = db.upsert(record);
          auto& entry = model.records[done.key];
          entry = {record, entry.second + 1};
          CHECK(done.revision == entry.second);
        }
        if (step % 25 == 0) model.check(db.read());
      }
      model.check(db.read());
    }
  }

  TEST_CASE("the content hash is equal for equal contents, however they came about, and for no others") {
    CatalogTables one, other;
    const std::string a = "Package: a\nDepends: x\n";
    const std::string b = "Package: b\nDepends: x\n";
    one.upsert(a);
    one.upsert(b);
    other.upsert(b);
    CHECK(content_hash(one.read()) != content_hash(other.read()));
    other.upsert(a);
    CHECK(content_hash(one.read()) == content_hash(other.read()));
    other.upsert(a);
    CHECK(content_hash(one.read()) != content_hash(other.read()));
  }

  TEST_CASE("results of other commands are not mistaken for those of upsert_package") {
    for (const std::string_view bytes : {"", "key", "key\n", "key\nx", "key\n1x"}) {
      CHECK(decode_upserted(bytes).error() == Errc::invalid_argument);
    }
    CHECK(decode_upserted("a b\n12").value().revision == 12);
  }
}
