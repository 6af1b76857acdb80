// What a database holds, for those who look at it from outside: nothing in its directory is changed.
//
// LMDB has no checksums, follows what its pages say wherever that leads, and keeps only its newest two transactions in
// sight. So the database of a stopped member is read without it, as of the checkpoint and page by page.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "flotilla/error.hpp"
#include "flotilla/txn.hpp"
#include "flotilla/types.hpp"
#include "state/applied.hpp"
#include "state/data_file.hpp"

namespace flotilla::state {

struct Content {
  struct Table {
    std::string name;
    TableKind kind = TableKind::plain;
    std::uint64_t pairs = 0;
  };
  struct Pages {
    std::uint32_t bytes = 0;  ///< each
    std::uint64_t used = 0;   ///< that the transaction reaches, its meta pages included
    std::uint64_t free = 0;   ///< that LMDB may write to
  };

  std::size_t txn_id = 0;
  Applied applied;
  std::set<NodeId> removed;   ///< who was a member and is none any more
  std::vector<Table> tables;  ///< of the application, in order of their names
  // Only of a database that nobody has open.
  std::optional<Pages> pages;
  std::optional<std::uint64_t> hash;  ///< as of Store::content_hash()
};

/// Of the transaction of `meta`, in a data file that nobody writes to. All of its pages are read, and nothing that they
/// say is believed: `damaged` (the message names the page) unless each is where it is pointed to, of the right kind and
/// reached once, keys are in order, counts are right, no page in use is listed as free, and our own rows are whole.
/// What stands in keys and values has no checksum: a flipped bit in one shows only in the hash. Takes no disk, and of
/// memory one bit for each page.
[[nodiscard]] Result<Content> read_content(const std::filesystem::path& data_file, const MetaPage& meta);

/// Of the newest transaction of a database that another process has open, by a short read transaction of LMDB.
[[nodiscard]] Result<Content> read_live_content(const std::filesystem::path& directory);

}  // namespace flotilla::state
