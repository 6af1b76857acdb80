// Transactions: ReadTxn, a snapshot of all tables; WriteTxn, the world a command lives in.
//
// A table is a named, ordered map of byte strings (an LMDB named database). A *sorted-duplicates* table holds several
// values, themselves sorted, under one key: the natural shape of an index. Keys order as unsigned bytes.
//
// Limits of the format, the same on every build: key 1 to 511 bytes, value up to 64 MiB, value in a sorted-duplicates
// table 1 to 511 bytes, table name 1 to 255 bytes (none of them zero) that do not begin with "__", 1,000 tables. A
// longer key or name may be asked for; nothing is found.
//
// Views (std::string_view) point into the memory map. Those from a ReadTxn are valid as long as it lives; those from a
// WriteTxn only until the next write of the same command.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "flotilla/error.hpp"
#include "flotilla/types.hpp"

namespace flotilla {

inline constexpr std::size_t key_bytes_max = 511;
inline constexpr std::size_t value_bytes_max = std::size_t{64} << 20;
inline constexpr std::size_t duplicate_bytes_max = 511;
inline constexpr std::size_t table_name_bytes_max = 255;
inline constexpr std::size_t tables_max = 1000;

/// Time as commands see it: stamped by the leader, never decreasing along the log, equal on all members.
using LogTime = std::chrono::time_point<std::chrono::system_clock, std::chrono::microseconds>;

enum class TableKind : std::uint8_t {
  plain,              ///< one value per key
  sorted_duplicates,  ///< a sorted set of values per key
};

namespace detail {
class TxnState;     // src/state/txn_state.hpp
class ReadState;    // a TxnState
class CursorState;  // owns one LMDB cursor
struct EndRead {
  void operator()(ReadState* state) const noexcept;
};
using ReadStateOwner = std::unique_ptr<ReadState, EndRead>;
}  // namespace detail

using KeyValue = std::pair<std::string_view, std::string_view>;

/// Walks one table in both directions. Every move says whether it stands on a pair; without one key() and value() are
/// empty, and only an absolute move (first, last, seek, find) leads back into the table. Must not outlive its
/// transaction. In a write transaction, any write makes its views invalid; move before reading again: next() and
/// previous() lead to the neighbours of the pair it stood on, also when that one was removed.
class Cursor {
 public:
  Cursor(Cursor&&) noexcept;
  Cursor& operator=(Cursor&&) noexcept;
  ~Cursor();

  bool first();
  bool last();
  /// To the first pair whose key is not below `key`.
  bool seek(std::string_view key);
  /// To the first pair of exactly `key`.
  bool find(std::string_view key);
  /// Sorted duplicates: to the first value not below `value` under exactly `key`.
  bool find(std::string_view key, std::string_view value);
  /// From a pair to its neighbour in the table's order (duplicates one by one); false past the end.
  bool next();
  bool previous();
  bool next_key();
  bool valid() const noexcept;
  std::string_view key() const;
  std::string_view value() const;

 private:
  friend class Table;
  explicit Cursor(std::unique_ptr<detail::CursorState> state);
  std::unique_ptr<detail::CursorState> state_;
};

/// Pairs of a table within key bounds, forward or backward: `for (auto [key, value] : table.range("a", "b"))`.
/// Single pass; must not outlive its transaction. In a command, do not write the same table while walking it.
class Range {
 public:
  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = KeyValue;
    using difference_type = std::ptrdiff_t;
    using pointer = const KeyValue*;
    using reference = KeyValue;

    KeyValue operator*() const;
    Iterator& operator++();
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& iterator, std::default_sentinel_t) { return iterator.range_ == nullptr; }

   private:
    friend class Range;
    explicit Iterator(Range* range) : range_(range) {}
    Range* range_;
  };

  Iterator begin();
  static std::default_sentinel_t end() { return {}; }

 private:
  friend class Table;
  Range(Cursor cursor, std::string low, std::optional<std::string> high, bool backward, bool only_low_key);
  bool start();
  bool step();
  bool inside() const;

  Cursor cursor_;
  std::string low_;
  std::optional<std::string> high_;
  bool backward_;
  bool only_low_key_;
};

/// Read access to one table in one transaction. A table that does not exist (in this snapshot) reads as empty.
/// A cheap handle; must not outlive its transaction.
class Table {
 public:
  bool exists() const noexcept;
  TableKind kind() const noexcept;
  /// The value; the first one of a sorted-duplicates key.
  std::optional<std::string_view> get(std::string_view key) const;
  bool contains(std::string_view key) const { return get(key).has_value(); }
  /// Sorted duplicates: whether exactly this pair is there. Plain: whether the key has this value.
  bool contains(std::string_view key, std::string_view value) const;
  /// Pairs with low <= key < high, in order; without `high`, to the end.
  Range range(std::string_view low, std::optional<std::string_view> high = std::nullopt) const;
  /// The same pairs in reverse order.
  Range range_backward(std::string_view low, std::optional<std::string_view> high = std::nullopt) const;
  /// All pairs whose key begins with `prefix`.
  Range prefix(std::string_view prefix) const;
  Range all() const { return range({}); }
  Range all_backward() const { return range_backward({}); }
  /// All pairs of exactly `key` (more than one only with sorted duplicates).
  Range values(std::string_view key) const;
  Cursor cursor() const;
  /// Number of pairs. O(1).
  std::uint64_t size() const;

 protected:
  friend class ReadTxn;
  Table(detail::TxnState* txn, unsigned handle, TableKind kind, bool exists)
      : txn_(txn), handle_(handle), kind_(kind), exists_(exists) {}

  detail::TxnState* txn_;
  unsigned handle_;
  TableKind kind_;
  bool exists_;
};

/// Write access to one table, inside a command.
///
/// A refused write (empty key, key, value or name over its limit, wrong kind of table, too many tables) returns
/// invalid_argument or too_many_tables and fails the command even when its result is not looked at, so nothing is ever
/// half done. A fault of the store (disk full, map full, I/O error) is not the command's business: it is kept in the
/// transaction, every later call returns it, and this member's apply stops with a reason whatever the command returns.
class WriteTable : public Table {
 public:
  /// Inserts or replaces; with sorted duplicates, adds the value to the key's set (a pair already there stays once).
  Result<void> put(std::string_view key, std::string_view value);
  /// Inserts unless the key (with sorted duplicates: the pair) is there. True if it inserted.
  Result<bool> insert(std::string_view key, std::string_view value);
  /// Removes a key with all its values. True if it was there.
  Result<bool> remove(std::string_view key);
  /// Removes one pair. True if it was there.
  Result<bool> remove(std::string_view key, std::string_view value);
  /// Removes all pairs; the table itself stays.
  Result<void> clear();

 private:
  friend class WriteTxn;
  using Table::Table;
};

/// A consistent snapshot of all tables at one applied index. Move-only. Opening one takes no lock that a writer holds
/// and copies nothing; while it is open LMDB keeps the pages it can see, so keep it short (its age is in status()).
/// Thread: one at a time, not bound to one. May outlive DB::close() and the DB itself: views stay valid while it lives.
class ReadTxn {
 public:
  ReadTxn(ReadTxn&&) noexcept;
  ReadTxn& operator=(ReadTxn&&) noexcept;
  ~ReadTxn();

  Table table(std::string_view name) const;
  /// Names of all tables of the application, in order.
  std::vector<std::string> tables() const;
  /// The log index this snapshot includes, and nothing after it.
  Index index() const noexcept;
  /// The first store error met by a read of this transaction (I/O, damage), if any: then answers since were empty.
  const std::optional<Error>& error() const noexcept;

  explicit ReadTxn(detail::ReadStateOwner state);  // made by DB::read()

 private:
  friend class WriteTxn;
  detail::ReadStateOwner state_;
};

/// What a command sees. Reads see the command's own writes and those of all commands before it.
/// Made by the applier alone; thread: the apply thread, for the duration of the command.
class WriteTxn {
 public:
  WriteTxn(const WriteTxn&) = delete;
  WriteTxn& operator=(const WriteTxn&) = delete;

  /// The plain table of this name, created if it is missing (by the first write to it).
  WriteTable table(std::string_view name);
  /// The sorted-duplicates table of this name, created if it is missing.
  WriteTable duplicates_table(std::string_view name);

  /// When the leader proposed this command. Never decreases along the log; the same on every member.
  LogTime time() const noexcept;
  /// 64 pseudo-random bits: a different value at each call, the same sequence on every member. Not secret.
  std::uint64_t random() noexcept;
  /// The log index of this command.
  Index index() const noexcept;

  explicit WriteTxn(detail::TxnState* state) : state_(state) {}  // made by the applier

 private:
  detail::TxnState* state_;
};

}  // namespace flotilla
