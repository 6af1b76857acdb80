#include "catalog.hpp"

#include <charconv>
#include <set>
#include <utility>

namespace catalog {

using flotilla::Args;
using flotilla::Bytes;
using flotilla::Errc;
using flotilla::fail;
using flotilla::ReadTxn;
using flotilla::Result;
using flotilla::WriteTxn;

namespace {

constexpr std::string_view packages_table = "packages";
constexpr std::string_view revisions_table = "revisions";
constexpr std::string_view section_table = "by_section";
constexpr std::string_view dependency_table = "by_dependency";

std::optional<Identity> parse_identity(std::string_view text) {
  if (text == "installed") return Identity::installed;
  if (text == "archive") return Identity::archive;
  return std::nullopt;
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// What a record puts into the indexes: names that it depends on, each once.
std::set<std::string> dependency_names(const Package& package) {
  std::set<std::string> names;
  for (const auto* field : {&package.pre_depends, &package.depends}) {
    for (const Alternatives& alternatives : *field) {
      for (const Relation& relation : alternatives) names.insert(relation.name);
    }
  }
  return names;
}

Result<void> unindex(WriteTxn& txn, const std::string& key, const Package& package) {
  if (!package.section.empty()) {
    if (auto ok = txn.duplicates_table(section_table).remove(package.section, key); !ok) return fail(ok.error());
  }
  flotilla::WriteTable by_dependency = txn.duplicates_table(dependency_table);
  for (const std::string& name : dependency_names(package)) {
    if (auto ok = by_dependency.remove(name, key); !ok) return fail(ok.error());
  }
  return {};
}

Result<void> index(WriteTxn& txn, const std::string& key, const Package& package) {
  if (!package.section.empty()) {
    if (auto ok = txn.duplicates_table(section_table).put(package.section, key); !ok) return ok;
  }
  flotilla::WriteTable by_dependency = txn.duplicates_table(dependency_table);
  for (const std::string& name : dependency_names(package)) {
    if (auto ok = by_dependency.put(name, key); !ok) return ok;
  }
  return {};
}

/// Takes the index entries of the record that is there, if any. Every stored record was parsed before it was stored.
Result<bool> unindex_stored(WriteTxn& txn, const std::string& key) {
  const std::optional<std::string_view> stored = txn.table(packages_table).get(key);
  if (!stored) return false;
  const Result<Package> package = parse_package(*stored);
  if (!package) return fail(package.error());
  if (auto ok = unindex(txn, key, *package); !ok) return fail(ok.error());
  return true;
}

Result<Bytes> upsert_package(WriteTxn& txn, const Args& args) {
  if (auto ok = args.expect(2, 3); !ok) return fail(ok.error());
  const std::optional<Identity> identity = parse_identity(args[0]);
  if (!identity) return fail(Errc::invalid_argument, "the identity is \"installed\" or \"archive\"");
  const Result<Package> package = parse_package(args[1]);
  if (!package) return fail(package.error());
  const std::string key = record_key(*package, *identity);

  flotilla::WriteTable revisions = txn.table(revisions_table);
  const std::uint64_t before = parse_number(revisions.get(key).value_or("0")).value_or(0);
  if (args.size() == 3 && parse_number(args[2]) != before) {
    return fail(Errc::command_failed, key + " has revision " + std::to_string(before));
  }
  if (auto ok = unindex_stored(txn, key); !ok) return fail(ok.error());
  if (auto ok = txn.table(packages_table).put(key, args[1]); !ok) return fail(ok.error());
  if (auto ok = index(txn, key, *package); !ok) return fail(ok.error());
  const std::string revision = std::to_string(before + 1);
  if (auto ok = revisions.put(key, revision); !ok) return fail(ok.error());
  return key + "\n" + revision;
}

Result<Bytes> remove_package(WriteTxn& txn, const Args& args) {
  if (auto ok = args.expect(1); !ok) return fail(ok.error());
  const std::string key(args[0]);
  const Result<bool> stored = unindex_stored(txn, key);
  if (!stored) return fail(stored.error());
  if (!*stored) return "absent";
  if (auto ok = txn.table(packages_table).remove(key); !ok) return fail(ok.error());
  if (auto ok = txn.table(revisions_table).remove(key); !ok) return fail(ok.error());
  return "removed";
}

std::vector<std::string> values_of(const ReadTxn& txn, std::string_view table, std::string_view key) {
  std::vector<std::string> values;
  for (const auto& [found, value] : txn.table(table).values(key)) values.emplace_back(value);
  return values;
}

/// FNV-1a, a length before each piece so that no two divisions of the same bytes are alike.
class Hasher {
 public:
  void add(std::string_view bytes) {
    add(bytes.size());
    for (const char byte : bytes) add_byte(static_cast<unsigned char>(byte));
  }
  void add(std::uint64_t number) {
    for (unsigned shift = 0; shift < 64; shift += 8) add_byte(static_cast<unsigned char>(number >> shift));
  }
  std::uint64_t value() const { return value_; }

 private:
  void add_byte(unsigned char byte) { value_ = (value_ ^ byte) * 0x100000001b3u; }
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace

std::string record_key(const Package& package, Identity identity) {
  std::string key = package.name;
  if (!package.architecture.empty()) key += ":" + package.architecture;
  if (identity == Identity::archive && !package.version.empty()) key += " " + package.version;
  return key;
}

flotilla::Commands commands() {
  flotilla::Commands all;
  all.add("upsert_package", upsert_package).add("remove_package", remove_package);
  return all;
}

Result<Upserted> decode_upserted(std::string_view result) {
  const std::size_t newline = result.rfind('\n');
  if (newline != std::string_view::npos) {
    if (const auto revision = parse_number(result.substr(newline + 1))) {
      return Upserted{std::string(result.substr(0, newline)), *revision};
    }
  }
  return fail(Errc::invalid_argument, "not a result of upsert_package");
}

std::uint64_t Catalog::size() const {
  return txn_.table(packages_table).size();
}

std::optional<Package> Catalog::find(std::string_view key) const {
  const auto record = txn_.table(packages_table).get(key);
  if (!record) return std::nullopt;
  Result<Package> package = parse_package(*record);
  if (!package) return std::nullopt;
  return std::move(*package);
}

std::vector<std::string> Catalog::named(std::string_view name) const {
  std::vector<std::string> keys;
  // A key is the name alone, or goes on with a colon or a blank; "libc6" must not find "libc6-dev".
  for (const auto& [key, record] : txn_.table(packages_table).prefix(name)) {
    const std::string_view after = key.substr(name.size());
    if (after.empty() || after.front() == ':' || after.front() == ' ') keys.emplace_back(key);
  }
  return keys;
}

std::vector<std::string> Catalog::in_section(std::string_view section) const {
  return values_of(txn_, section_table, section);
}

std::vector<std::string> Catalog::dependents(std::string_view name) const {
  return values_of(txn_, dependency_table, name);
}

std::uint64_t Catalog::revision(std::string_view key) const {
  return parse_number(txn_.table(revisions_table).get(key).value_or("0")).value_or(0);
}

std::vector<Upserted> Catalog::revisions() const {
  std::vector<Upserted> all;
  for (const auto& [key, revision] : txn_.table(revisions_table).all()) {
    all.push_back(Upserted{std::string(key), parse_number(revision).value_or(0)});
  }
  return all;
}

std::uint64_t content_hash(const ReadTxn& txn) {
  Hasher hasher;
  for (const std::string& name : txn.tables()) {
    const flotilla::Table table = txn.table(name);
    hasher.add(name);
    hasher.add(table.size());
    for (const auto& [key, value] : table.all()) {
      hasher.add(key);
      hasher.add(value);
    }
  }
  return hasher.value();
}

}  // namespace catalog
