// The checkpoint: the transaction that a start takes the database back to (FORMAT.md). All of its pages are durable,
// and a reader keeps LMDB from using one of them again, until the next checkpoint is durable in its place.
#pragma once

#include <filesystem>

#include "flotilla/error.hpp"
#include "flotilla/types.hpp"
#include "state/data_file.hpp"

namespace flotilla::state {

struct Checkpoint {
  Index index;  ///< the last entry that the transaction includes
  Term term;    ///< of that entry
  /// The database was received as it is: the log may have to begin anew after it.
  bool installed = false;
  MetaPage meta;
};

/// Of the database in `directory`. not_found; damaged.
[[nodiscard]] Result<Checkpoint> read_checkpoint(const std::filesystem::path& directory);

/// Replaces the one before. `sync`: it is durable then. After disk_full the one before is in force; after any other
/// error either may be.
[[nodiscard]] Result<void> write_checkpoint(const std::filesystem::path& directory, const Checkpoint& checkpoint,
                                            bool sync);

}  // namespace flotilla::state
