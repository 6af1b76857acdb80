// The rows of the reserved table: their keys and values (FORMAT.md), and access to them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "flotilla/error.hpp"
#include "flotilla/txn.hpp"
#include "flotilla/types.hpp"
#include "state/applied.hpp"
#include "state/lmdb.hpp"

namespace flotilla::state {

inline constexpr std::uint32_t format_version = 1;

inline constexpr std::string_view format_key = "format";
inline constexpr std::string_view applied_key = "applied";
inline constexpr std::string_view configuration_key = "configuration";
inline constexpr std::string_view table_prefix = "table/";
inline constexpr std::string_view session_prefix = "session/";
inline constexpr std::string_view node_prefix = "node/";

std::string table_key(std::string_view name);
/// Ids follow the prefix as eight bytes, the highest first, so that rows stand in the order of ids.
std::string session_key(std::uint64_t session);
std::string node_key(NodeId node_id);
/// The id of a session or node row's key; nullopt: not such a key.
std::optional<std::uint64_t> id_of_key(std::string_view key, std::string_view prefix);

std::string encode_format();
std::optional<std::uint32_t> decode_format(std::string_view bytes);

std::string encode(TableKind kind);
std::optional<TableKind> decode_kind(std::string_view bytes);

/// Where in the log the database stands.
struct AppliedRow {
  Index index;
  Term term;
  std::uint64_t time = 0;
  Index configuration_index;
};
std::string encode(const AppliedRow& row);
bool decode_applied(std::string_view bytes, AppliedRow& row);

/// The newest session that a node opened. Kept when the session ends: an incarnation is never used twice.
struct NodeRow {
  std::uint64_t incarnation = 0;
  std::uint64_t session = 0;
  std::vector<std::string> commands = {};  ///< as the session's opening said; see SessionPayload

  /// Of a node that was a member and is none any more: it never opens a session again.
  static NodeRow removed() { return {~std::uint64_t{0}, 0}; }
  friend bool operator==(const NodeRow&, const NodeRow&) = default;
};
std::string encode(const NodeRow& row);
std::optional<NodeRow> decode_node(std::string_view bytes);

/// The reserved table in one transaction. Functions return LMDB's code.
class Rows {
 public:
  Rows(MDB_txn* txn, MDB_dbi dbi) : txn_(txn), dbi_(dbi) {}

  int put(std::string_view key, std::string_view value) const;
  /// MDB_NOTFOUND if it is not there.
  int get(std::string_view key, std::string_view& value) const;
  /// Success also if it was not there.
  int remove(std::string_view key) const;
  /// Calls visit(key, value) for the rows that begin with `prefix`, in order, until it returns false.
  template <class Visit>
  int each(std::string_view prefix, Visit visit) const {
    MDB_cursor* raw = nullptr;
    if (const int code = mdb_cursor_open(txn_, dbi_, &raw); code != 0) return code;
    const lmdb::CursorOwner cursor(raw);
    MDB_val key = lmdb::to_val(prefix);
    MDB_val value{};
    int code = mdb_cursor_get(raw, &key, &value, MDB_SET_RANGE);
    while (code == 0 && lmdb::to_view(key).starts_with(prefix) && visit(lmdb::to_view(key), lmdb::to_view(value))) {
      code = mdb_cursor_get(raw, &key, &value, MDB_NEXT);
    }
    return code == MDB_NOTFOUND ? 0 : code;
  }

 private:
  MDB_txn* txn_;
  MDB_dbi dbi_;
};

/// Finds a row; MDB_NOTFOUND if there is none.
using GetRow = std::function<int(std::string_view key, std::string_view& value)>;

/// The format, applied and configuration rows. version_unsupported, damaged, or LMDB's error.
Result<Applied> read_applied(const GetRow& get);
inline Result<Applied> read_applied(const Rows& rows) {
  return read_applied([&](std::string_view key, std::string_view& value) { return rows.get(key, value); });
}

}  // namespace flotilla::state
