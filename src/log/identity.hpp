// data/node: who this member is. Written whole, synced, then renamed; its checksum is verified at each start.
#pragma once

#include <cstdint>
#include <string>

#include "flotilla/error.hpp"
#include "flotilla/types.hpp"
#include "log/file.hpp"

namespace flotilla::log {

struct Identity {
  ClusterId cluster_id;
  NodeId node_id;
  std::uint64_t incarnation = 0;  ///< raised and written durably at every start, before the first message

  friend bool operator==(const Identity&, const Identity&) = default;
};

/// not_found if there is none; damaged; version_unsupported.
[[nodiscard]] Result<Identity> read_identity(FileSystem& files, const std::string& path);
[[nodiscard]] Result<void> write_identity(FileSystem& files, const std::string& path, const Identity& identity);

}  // namespace flotilla::log
