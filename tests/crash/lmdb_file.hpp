// An LMDB data file as bytes, without LMDB: every row, and whether every page has exactly one use.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace crash {

/// Everything that the newest meta page leads to.
struct Tables {
  std::uint64_t txn_id = 0;
  /// Per named table: the sum over its rows of hash(name, key, value).
  std::map<std::string, std::uint64_t> sums;
  std::map<std::string, std::uint64_t> rows;
  /// All rows of the table `__flotilla`.
  std::map<std::string, std::string> reserved;
  std::uint64_t pages = 0;
};

std::uint64_t row_hash(std::string_view table, std::string_view key, std::string_view value);

/// Of a whole data file. Throws std::runtime_error that says what is wrong: a page used twice, neither used nor free,
/// of the wrong kind, or beyond the end.
Tables read_tables(std::string_view bytes);

}  // namespace crash
