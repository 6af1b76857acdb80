#include "disk_log.hpp"

#include <algorithm>

#include "log/format.hpp"

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
  disk.base_term = recovered.last_term;
  while (disk.last_index() < recovered.last_index) {
    const auto entries = (*log)->read(disk.last_index().next(), 1u << 20);
    if (!entries) return fail(entries.error());
    for (const raft::Entry& entry : *entries) disk.entries.push_back({entry.term, entry.crc});
  }
  return disk;
}

std::vector<Place> blocks(log::MemoryFileSystem& files, const std::string& directory) {
  std::vector<std::pair<std::uint64_t, Place>> chain;
  for (const std::string& name : files.list(directory).value_or(std::vector<std::string>{})) {
    if (!log::segment_id(name)) continue;
    const std::string path = directory + "/" + name;
    const std::string bytes = files.contents(path);
    log::BlockHeader header;
    for (std::size_t at = 0; at + log::sector_bytes <= bytes.size(); at += log::whole_sectors(header.bytes)) {
      if (log::parse_block_header(std::string_view(bytes).substr(at), header) != log::HeaderState::valid) break;
      // What an earlier recovery cut off is dead for good, and nobody looks at it.
      while (at == 0 && !chain.empty() && chain.back().first >= header.number) chain.pop_back();
      chain.push_back({header.number, {path, at, log::whole_sectors(header.bytes), header.records > 0}});
    }
  }
  std::vector<Place> places;
  std::transform(chain.begin(), chain.end(), std::back_inserter(places), [](auto& block) { return block.second; });
  return places;
}

}  // namespace flotilla::sim
