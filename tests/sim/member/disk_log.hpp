// What one disk would give back of a log: read by the real recovery, from a copy.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "flotilla/error.hpp"
#include "log/log.hpp"
#include "log/memory_file.hpp"
#include "raft/ready.hpp"

namespace flotilla::sim {

struct DiskLog {
  struct Stamp {
    Term term;
    std::uint32_t crc = 0;  ///< of the whole record
    friend bool operator==(const Stamp&, const Stamp&) = default;
  };
  raft::HardState hard_state;
  Index commit_index;
  Index first_index{1};
  Term base_term;              ///< of the entry before, if there is no other
  std::vector<Stamp> entries;  ///< from first_index on

  Index last_index() const { return Index{first_index.value + entries.size() - 1}; }
  Term last_term() const { return entries.empty() ? base_term : entries.back().term; }
  std::optional<Term> term_at(Index index) const;
};

/// After a power loss now, if nothing unsynced survived; the disk itself is left alone. A disk without a log: an empty
/// one.
Result<DiskLog> read_disk_log(const log::MemoryFileSystem& files, const std::string& directory);

/// Where the blocks of the log lie, oldest first. If one that others follow is damaged, no crash can be the reason.
struct Place {
  std::string path;
  std::size_t offset = 0;
  std::size_t bytes = 0;
  bool holds_entries = false;
};
std::vector<Place> blocks(log::MemoryFileSystem& files, const std::string& directory);

}  // namespace flotilla::sim
