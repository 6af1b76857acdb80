// A catalogue of Debian packages: a domain database of its own on top of Flotilla. One command keeps four tables in
// step; queries read one snapshot.
//
//   packages       name[:architecture][ version]  -> the record as it stood in the file
//   revisions      the same key                   -> how often the record was written, in decimal
//   by_section     section                        -> keys (sorted duplicates)
//   by_dependency  package name                   -> keys of the packages whose Depends or Pre-Depends name it
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "flotilla/command.hpp"
#include "flotilla/error.hpp"
#include "flotilla/txn.hpp"
#include "package.hpp"

namespace catalog {

/// What makes two records the same package. A dpkg status file has one version of each name and architecture; an
/// archive's index may have several.
enum class Identity : std::uint8_t { installed, archive };

/// The key of a record in `packages`.
std::string record_key(const Package& package, Identity identity);

/// upsert_package  identity record [revision]  -> "key\nrevision"
///     Inserts or replaces one record and its index entries, all or nothing. `identity` is "installed" or "archive".
///     With a revision: only if the record was written that often so far (0: not at all), else command_failed; so a
///     call whose outcome is unknown can be asked again safely.
/// remove_package  key                         -> "removed" or "absent"
flotilla::Commands commands();

/// What upsert_package returned.
struct Upserted {
  std::string key;
  std::uint64_t revision = 0;
};
flotilla::Result<Upserted> decode_upserted(std::string_view result);

/// Queries on one snapshot, which must outlive this.
class Catalog {
 public:
  explicit Catalog(const flotilla::ReadTxn& txn) : txn_(txn) {}

  std::uint64_t size() const;
  /// The record of exactly this key.
  std::optional<Package> find(std::string_view key) const;
  /// Keys of all records of a name: all architectures and versions.
  std::vector<std::string> named(std::string_view name) const;
  std::vector<std::string> in_section(std::string_view section) const;
  /// Keys of what names `name` in Depends or Pre-Depends, also as one alternative of several.
  std::vector<std::string> dependents(std::string_view name) const;
  /// 0: no such record.
  std::uint64_t revision(std::string_view key) const;
  /// Every key with its revision, in order.
  std::vector<Upserted> revisions() const;

 private:
  const flotilla::ReadTxn& txn_;
};

/// Over all tables of a snapshot, in order, names, keys and values with their lengths: two members with the same
/// contents have the same. 64-bit FNV-1a: finds accidents, not forgeries.
std::uint64_t content_hash(const flotilla::ReadTxn& txn);

}  // namespace catalog
