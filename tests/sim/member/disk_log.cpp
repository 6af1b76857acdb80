#include "disk_log.hpp"

namespace flotilla::sim {

std::optional<Term> DiskLog::term_at(Index index) const {
  if (index < first_index || index > last_index()) return std::nullopt;
  return entries[static_cast<std::size_t>(index - first_index)].term;
}

Result<DiskLog> read_disk_log(const log::MemoryFileSystem& files, const std::string& directory) {
  const auto copy = files.clone();
  copy->crash([] { return false; });
  const auto exists = copy->exists(directory);
  if (!exists) return fail(exists.error());
  DiskLog disk;
  if (!*exists) return disk;
  auto log = log::Log::open(*copy, {.directory = directory, .segment_bytes = 64u << 10, .prepare_ahead = false});
  if (!log) return fail(log.error());
  const auto& recovered = (*log)->recovered();
  disk.hard_state = recovered.hard_state;
  disk.commit_index = recovered.commit_index;
  disk.first_index = recovered.first_index;
  while (disk.last_index() < recovered.last_index) {
    const auto entries = (*log)->read(disk.last_index().next(), 1u << 20);
    if (!entries) return fail(entries.error());
    for (const raft::Entry& entry : *entries) disk.entries.push_back({entry.term, entry.crc});
  }
  return disk;
}

}  // namespace flotilla::sim
