// What an LMDB data file says of itself, read without LMDB: it would map a file that comes from elsewhere and follow
// its numbers wherever they lead.
#pragma once

#include <cstdint>
#include <string_view>

#include "flotilla/error.hpp"
#include "state/file.hpp"

namespace flotilla::state {

/// `damaged` unless both meta pages are of LMDB 0.9's data format, with a page size that is a power of two from 512 to
/// 65,536 bytes, and point inside of the file, which is a whole number of pages. Says nothing of the pages between.
[[nodiscard]] Result<void> check_data_file(const FileHandle& file);

}  // namespace flotilla::state
