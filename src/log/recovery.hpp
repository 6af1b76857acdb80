// Recovery: what the segments on disk say, without changing any of them. The rules are in FORMAT.md#recovery.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "flotilla/error.hpp"
#include "log/file.hpp"
#include "log/format.hpp"
#include "log/log.hpp"
#include "log/log_map.hpp"

namespace flotilla::log {

struct SegmentFile {
  std::uint64_t id = 0;
  std::uint64_t bytes = 0;
};

/// The longest chain of good blocks from the oldest segment on.
struct Chain {
  std::uint64_t stream = 0;           ///< 0: no block says
  std::uint64_t number = 0;           ///< the newest good block; 0: none
  std::uint32_t crc = 0;              ///< its checksum
  std::uint64_t durable_through = 0;  ///< by its own words the stream is durable up to this block
  raft::HardState hard_state;
  Index commit_index;
  LogMap map;

  std::deque<SegmentFile> segments;  ///< oldest to newest, up to the one in which the chain ends
  std::vector<SegmentFile> dead;  ///< those after, up to the last with anything but zeros in it: no block of the chain
  std::vector<SegmentFile> unused;  ///< those after: only zeros
  std::uint64_t end_offset = 0;     ///< where the chain ends in the last of `segments`, unless torn
  bool torn = false;                ///< something follows the chain that is neither part of it nor zeros
  bool idle = false;                ///< the newest block says nothing that the one before it does not
  struct Place {
    std::uint64_t number = 0;
    std::uint64_t segment = 0;
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
  };
  std::deque<Place> unsynced;  ///< good blocks that are not known to be durable, oldest first
};

/// A segment, and the block that it begins with if its header holds.
struct SegmentStart {
  SegmentFile segment;
  std::optional<BlockHeader> first;
};

/// As they are now, oldest first; judges nothing, so the log may be in use or damaged.
Result<std::vector<SegmentStart>> list_segments(FileSystem& files, const std::string& directory);

/// damaged (the message names file, offset and finding), version_unsupported, io_error.
Result<Chain> walk(FileSystem& files, const LogOptions& options);

}  // namespace flotilla::log
