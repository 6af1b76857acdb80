// The directory that the database is in, and how another takes its place.
//
//   data/state          a symbolic link to state.N: what is in force
//   data/state.N        data.mdb, lock.mdb and checkpoint (FORMAT.md)
//   data/state.M.tmp    a snapshot that is being received (M: one more than N was at the start)
//
// One rename of the link, then a sync of the directory, is the moment of the change. Other state.N, state.N.tmp,
// state.copy-N.tmp and state.compact-N.tmp are what an interruption left, and are removed at the next start.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "flotilla/error.hpp"
#include "flotilla/types.hpp"

namespace flotilla::state {

/// Thread: one at a time; incoming(), outgoing() and compacted(): any.
class Directory {
 public:
  /// `sync`: every step is durable before the next; tests of pure logic turn it off.
  /// Makes state.1 and the link. Requires: no link.
  static Result<Directory> create(const std::filesystem::path& data_dir, bool sync);
  /// Follows the link, and removes what interrupted changes left. not_found: there is no link; damaged: it leads
  /// nowhere.
  static Result<Directory> open(const std::filesystem::path& data_dir, bool sync);
  /// What open() finds, and what it removes, by name; changes nothing.
  struct Found {
    std::uint64_t number = 0;
    std::vector<std::string> leftovers;
  };
  static Result<Found> look(const std::filesystem::path& data_dir);
  /// Removes the link and all it could lead to: of a member that never came to be.
  static Result<void> remove(const std::filesystem::path& data_dir);

  std::filesystem::path path() const { return numbered(number_); }
  /// Where the next database is put together.
  std::filesystem::path incoming() const;
  /// Where a copy to be sent is made; a new `number` each time.
  std::filesystem::path outgoing(std::uint64_t number) const;
  /// Where a compacted copy is made; a new `number` each time.
  std::filesystem::path compacted(std::uint64_t number) const;
  /// One that has its final name, and is not in force.
  struct Staged {
    std::uint64_t number = 0;
    std::filesystem::path path;
  };
  /// Gives `made` (such as incoming()) its final name. Requires: it is whole and durable.
  Result<Staged> stage(const std::filesystem::path& made);
  /// It is in force from now on. disk_full: it is not; after any other error either may be.
  Result<void> publish(const Staged& staged);
  /// Removes the names of what was in force before publish(): whoever still reads it holds its files. Requires: no
  /// checkpoint is written there any more.
  void remove_replaced();
  void discard(const Staged& staged);
  /// What was in force before publish().
  std::filesystem::path replaced() const { return numbered(replaced_); }

 private:
  Directory(std::filesystem::path data_dir, bool sync, std::uint64_t number)
      : data_dir_(std::move(data_dir)), sync_(sync), first_number_(number), number_(number), staged_(number) {}
  std::filesystem::path numbered(std::uint64_t number) const;
  Result<void> link_to(std::uint64_t number) const;

  std::filesystem::path data_dir_;
  bool sync_;
  std::uint64_t first_number_;  ///< of this run
  std::uint64_t number_;        ///< in force
  std::uint64_t staged_;        ///< the newest: none gets a number that one before it had
  std::uint64_t replaced_ = 0;  ///< was in force before
};

}  // namespace flotilla::state
