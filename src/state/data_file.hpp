// What an LMDB data file says of itself, read without LMDB: it would map a file that comes from elsewhere and follow
// its numbers wherever they lead.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "flotilla/error.hpp"
#include "state/file.hpp"

namespace flotilla::state {

/// Levels of pages in a tree: LMDB's cursors have no room for more.
inline constexpr std::uint16_t tree_depth_max = 32;

/// LMDB's record of where the pages of one transaction are: it writes them to two places in turn, the newer one counts.
struct MetaPage {
  std::string bytes;

  std::uint64_t txn_id() const;
  std::uint32_t page_bytes() const;
  /// Of the file, as far as the transaction knows.
  std::uint64_t last_page() const;
  /// LMDB's records (MDB_db) of the free pages, and of the named tables.
  std::string_view free_tree() const;
  std::string_view main_tree() const;
  friend bool operator==(const MetaPage&, const MetaPage&) = default;
};
/// Of `bytes` that come from elsewhere: nullopt unless they are a meta page of LMDB 0.9's data format.
std::optional<MetaPage> to_meta_page(std::string bytes);
/// The newer one. `damaged`: the file has none.
[[nodiscard]] Result<MetaPage> read_meta_page(const FileHandle& file);
/// Into both places, so that LMDB knows of no other transaction. Requires: nobody has the file open.
[[nodiscard]] Result<void> write_meta_pages(FileHandle& file, const MetaPage& meta);

/// `damaged` if the file ends before the root of a tree of that transaction, or has something else there: LMDB would
/// follow its numbers wherever they lead. (The file may be shorter than its last page: what is taken and freed in one
/// transaction is never written.)
[[nodiscard]] Result<void> check_roots(const FileHandle& file, const MetaPage& meta);

/// `damaged` unless both meta pages are of LMDB 0.9's data format, with a page size that is a power of two from 512 to
/// 65,536 bytes, and point inside of the file, which is a whole number of pages. Says nothing of the pages between.
[[nodiscard]] Result<void> check_data_file(const FileHandle& file);

}  // namespace flotilla::state
