// From a data directory to a member ready to run: lock, identity, log, state, and what of the log is still to be
// applied.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "flotilla/command.hpp"
#include "flotilla/error.hpp"
#include "flotilla/options.hpp"
#include "log/file.hpp"
#include "log/identity.hpp"
#include "log/log.hpp"
#include "raft/core.hpp"
#include "state/directory.hpp"
#include "state/store.hpp"

namespace flotilla::node {

/// Holds data/LOCK for as long as it lives: one process, and one DB in it, has the directory.
class DirectoryLock {
 public:
  static Result<DirectoryLock> take(const std::filesystem::path& data_dir);
  DirectoryLock(DirectoryLock&& other) noexcept;
  DirectoryLock& operator=(DirectoryLock&& other) noexcept;
  ~DirectoryLock();

 private:
  explicit DirectoryLock(int descriptor);
  int descriptor_ = -1;
  int taker_ = 0;  ///< process
};

struct Started {
  DirectoryLock lock;
  log::Identity identity;
  std::unique_ptr<log::Log> log;
  std::unique_ptr<state::Directory> directory;
  std::unique_ptr<state::Store> store;
  raft::Restored restored;
};

/// What a start takes from outside the directory. The simulator has other files and no threads of the log's own.
struct Surroundings {
  log::FileSystem& files;
  std::uint64_t random = 0;   ///< for new ids
  bool prepare_ahead = true;  ///< see log::LogOptions
  bool sync_state = true;     ///< see state::StoreOptions
};

/// Opens data_dir, or makes it: `found` (or no `listen`) bootstraps a cluster of one, `join` makes a member that
/// belongs to none yet. `data/node` is written last, so what a crash left of a first start is made anew. Raises the
/// incarnation. `advertise` is this member's address in the first configuration.
Result<Started> start(const Surroundings& surroundings, const Options& options, const Commands& commands);

/// Whether the newest configuration in the log names this member alone.
bool alone(const Started& started);

std::string identity_path(const Options& options);

}  // namespace flotilla::node
