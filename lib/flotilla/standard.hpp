// The standard commands: what most applications want before they write their own. Each works on one plain table, which
// the first write creates.
//
//   auto db = flotilla::DB::open(options, flotilla::standard_commands()).value();
//   flotilla::StandardDB tables(db);
//   tables.put("accounts", "alice", "90").value();
//   auto swap = tables.compare_and_swap("accounts", "alice", "90", "70").value();   // swap.swapped, swap.value
//
// Name, arguments and result, as bytes; any other number of arguments is refused with invalid_argument:
//
//   put                 table key value          -> empty
//   put_if_absent       table key value          -> 0x01 if it was put, 0x00 if the key was there
//   cas                 table key expected new   -> the value after it. Requires the key, with the value `expected`
//                       table key new            -> the value after it. Requires that the key is absent
//   compare_and_swap    as cas                   -> 0x01 and the new value, if it swapped; 0x00 and the value that is
//                                                   there, if it did not; 0x02 alone, if it did not and no key is there
//   compare_and_remove  table key expected       -> 0x01 if it was removed, 0x00 if the key is absent or has another
//                                                   value
//   remove              table key                -> 0x01 if it was there, 0x00 if there was nothing to remove
//   noop                                         -> empty
//
// A comparison that does not hold changes nothing. `cas` whose key is required and absent fails with not_found (there
// is no value to return). Its result alone cannot tell a swap from a key that already had the new value: two callers
// who both count 5 up to 6 would both believe it. Where that matters, use compare_and_swap, as StandardDB does.
#pragma once

#include <optional>
#include <string_view>

#include "flotilla/command.hpp"
#include "flotilla/db.hpp"
#include "flotilla/error.hpp"
#include "flotilla/types.hpp"

namespace flotilla {

/// A registry of the commands above, to hand to DB::open or to add one's own to.
Commands standard_commands();

/// What compare_and_swap did.
struct Swap {
  bool swapped = false;
  /// The value after it: the new one, or the one that stood in the way. nullopt: the key is absent.
  std::optional<Bytes> value;

  friend bool operator==(const Swap&, const Swap&) = default;
};

/// The results above as values, for callers of DB::command() who pipeline. An error stays what it is; bytes that none
/// of the standard commands returns (an application replaced it) are command_failed.
Result<bool> decode_flag(Result<Bytes> result);
Result<Swap> decode_swap(Result<Bytes> result);

/// The standard commands with types, for one call after the other. Every function blocks until the call has ended, and
/// ends as DB::command() does: on success durable on a majority and visible to every later read() here. Holds a
/// reference: the DB must outlive it. Thread: any. From a completion or a command: would_deadlock.
class StandardDB {
 public:
  explicit StandardDB(DB& db) : db_(db) {}

  Result<void> put(std::string_view table, std::string_view key, std::string_view value, CallOptions call = {});
  /// True if it put, false if the key was there.
  Result<bool> put_if_absent(std::string_view table, std::string_view key, std::string_view value,
                             CallOptions call = {});
  /// Requires the key, with the value `expected`; with std::nullopt, that the key is absent.
  Result<Swap> compare_and_swap(std::string_view table, std::string_view key, std::optional<std::string_view> expected,
                                std::string_view desired, CallOptions call = {});
  /// True if the key had the value `expected` and was removed.
  Result<bool> compare_and_remove(std::string_view table, std::string_view key, std::string_view expected,
                                  CallOptions call = {});
  /// True if it was there.
  Result<bool> remove(std::string_view table, std::string_view key, CallOptions call = {});
  /// One trip through the log: everything that succeeded anywhere before it is applied here when it returns.
  Result<void> noop(CallOptions call = {});
  /// From a new snapshot; nullopt: no such key.
  Result<std::optional<Bytes>> get(std::string_view table, std::string_view key,
                                   Consistency consistency = Consistency::local, CallOptions call = {});

 private:
  DB& db_;
};

}  // namespace flotilla
