// From a data directory to a member ready to run: lock, identity, log, state, and what of the log is still to be
// applied.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
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
  /// For who only looks at the directory: no member starts meanwhile, others may look too, and nothing is written.
  /// in_use: a member has it; not_found: no member ever had.
  static Result<DirectoryLock> share(const std::filesystem::path& data_dir);
  /// The process that says it has the directory; 0: none does.
  static pid_t holder(const std::filesystem::path& data_dir);
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

std::string identity_path(const std::filesystem::path& data_dir);
std::string log_path(const std::filesystem::path& data_dir);
std::string state_path(const std::filesystem::path& data_dir);

// What start() decides by what it finds; these change nothing.

/// The term of an entry that the log holds.
using TermAt = std::function<Result<Term>(Index)>;

/// Of a directory without data/node: `damaged` unless it holds at most what an interrupted first start left.
Result<void> check_unfinished(log::FileSystem& files, const std::filesystem::path& data_dir);
/// Of one with data/node: `damaged` if the log or the database is missing.
Result<void> check_parts(log::FileSystem& files, const std::filesystem::path& data_dir);
/// `damaged` if the log has no block.
Result<void> check_not_emptied(const log::Log::Recovered& recovered, const std::filesystem::path& data_dir);
/// Of an installed snapshot that includes the log up to `applied`: whether the log has to begin anew after it. damaged.
Result<bool> must_begin_anew(const state::Applied& applied, const log::Log::Recovered& recovered,
                             const TermAt& term_at);
/// `damaged` unless the log goes on from where the database stands.
Result<void> check_against_log(const state::Applied& applied, const log::Log::Recovered& recovered,
                               const TermAt& term_at);
/// What a member that was removed is told.
Error removed(const std::filesystem::path& data_dir);

}  // namespace flotilla::node
