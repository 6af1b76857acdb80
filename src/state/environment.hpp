// Environment: one open LMDB environment, the tables it has, and the pool of its read transactions. Shared by the store
// and by every ReadTxn, so it closes with the last of them.
//
// Thread: announce(), publish(), withdraw() and handle() for writing: apply; all else: any. Locks are held for tens of
// nanoseconds, never across a write or a sync; threads that read share none, but for every sixteenth.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fork.hpp"
#include "base/stripe.hpp"
#include "flotilla/error.hpp"
#include "flotilla/txn.hpp"
#include "state/data_file.hpp"
#include "state/lmdb.hpp"

namespace flotilla::state {

/// Name of the one table that is ours. Applications' names cannot begin with "__".
inline constexpr const char* reserved_table = "__flotilla";

/// A table as LMDB knows it. Tables are emptied but never deleted, so a handle stays good until the environment closes.
struct TableEntry {
  MDB_dbi dbi = 0;
  TableKind kind = TableKind::plain;
  std::size_t created_by = 0;  ///< LMDB transaction that made it; 0: it was there at open
};

/// The application's tables as of one transaction.
using Catalog = std::map<std::string, TableEntry, std::less<>>;

/// What makes a file the same file, whatever it is called.
struct FileId {
  dev_t device;
  ino_t inode;
  friend auto operator<=>(const FileId&, const FileId&) = default;
};

/// Claims a file for this process; a second claim of it is refused until the first is gone (CORRECTNESS G9: opening one
/// file twice in a process and closing one of them silently drops the other's locks).
class FileClaim {
 public:
  static Result<FileClaim> of(const std::filesystem::path& file);
  FileClaim(FileClaim&& other) noexcept;
  FileClaim& operator=(FileClaim&&) = delete;
  ~FileClaim();
  /// In a forked child: the claim is the parent's.
  void forget() noexcept { held_ = false; }

 private:
  FileClaim(FileId id, int descriptor) : id_(id), descriptor_(descriptor), held_(true) {}
  FileId id_;
  int descriptor_;  ///< only so that no other file gets the id while it is claimed
  bool held_;
};

struct EnvironmentOptions {
  std::filesystem::path directory;
  std::size_t map_size = 0;
  unsigned readers_max = 0;
  std::optional<MetaPage> back_to;  ///< the only transaction that LMDB is to know of
};

/// The process that has the environment of this lock file open; 0: none, -1: one that cannot be seen from here.
/// Requires: not this process.
Result<pid_t> lock_holder(const std::filesystem::path& lock_path);

class Environment {
 public:
  /// A read transaction of the member's own, which keeps the pages of its snapshot as they are. Thread: any.
  class Pin {
   public:
    Pin(Pin&& other) noexcept : environment_(other.environment_), txn_(std::exchange(other.txn_, nullptr)) {}
    Pin& operator=(Pin&&) = delete;
    ~Pin();
    std::size_t txn_id() const noexcept { return mdb_txn_id(txn_); }

   private:
    friend class Environment;
    Pin(const Environment& environment, MDB_txn* txn) : environment_(&environment), txn_(txn) {}
    const Environment* environment_;
    MDB_txn* txn_;
  };

  /// Requires: what is in the file may be opened (checkpoint.hpp). No commit is synced: that is the checkpoints' work.
  /// in_use: another process has it open.
  static Result<std::shared_ptr<Environment>> open(const EnvironmentOptions& options);

  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  ~Environment();

  MDB_env* handle() const noexcept { return env_.get(); }
  MDB_dbi reserved() const noexcept { return reserved_; }
  void set_reserved(MDB_dbi dbi) noexcept { reserved_ = dbi; }
  const std::filesystem::path& directory() const noexcept { return directory_; }

  /// At the newest committed transaction. Goes before the environment does.
  Result<Pin> pin() const;
  /// Holds it in place of the one before.
  void hold(Pin pin);
  /// Holds none.
  void let_go();
  /// What the newest committed transaction calls its last page, in bytes from the beginning of the file.
  std::uint64_t used_bytes() const noexcept;

  /// Keeps the file some way ahead of used_bytes(). Thread: apply, between two transactions.
  ///
  /// What LMDB appends it writes in runs of up to 64 pages, which the system then keeps in its page cache as one piece;
  /// and each later write of one of these pages looks at all of the piece (6.7 us, of a page alone 1.8, of four 2.1).
  /// So the pieces are made before, of four pages each. A failure is none: the file is then as long as LMDB makes it.
  void extend() noexcept;

  /// The same without free pages: what a compacted copy needs. Reads LMDB's list of free pages.
  std::uint64_t live_bytes() const;

  /// True in a child that this process forked: nothing here may be touched then, not even to close it.
  bool forked() const noexcept;

  /// A snapshot of what `environment` has, which keeps it open. too_many_readers, forked, or an LMDB error.
  static Result<detail::ReadStateOwner> begin_read(std::shared_ptr<Environment> environment);
  static void end_read(std::unique_ptr<detail::ReadState> reader) noexcept;
  /// Frees the slots of processes that died with a read transaction open.
  void sweep_readers() noexcept;
  unsigned readers() const;
  std::chrono::milliseconds oldest_reader_age() const;
  /// What was freed since the oldest of them began: no page of it is used again before that ends. Reads LMDB's list of
  /// free pages, each record of it once.
  std::uint64_t pinned_bytes() const;
  /// The same of what hold() holds.
  std::uint64_t held_bytes() const;

  /// Before the commit of transaction `txn_id`, which makes tables. LMDB shows its data to readers a moment before its
  /// handles; until publish() a reader that would see the data waits, else it would miss a table of its own snapshot.
  void announce(std::size_t txn_id);
  /// After that commit. Also at open.
  void publish(std::shared_ptr<const Catalog> catalog);
  /// The announced transaction failed to commit.
  void withdraw();
  std::shared_ptr<const Catalog> catalog() const;

 private:
  Environment(lmdb::Env env, FileClaim claim, const EnvironmentOptions& options);

  Result<void> start(detail::ReadState& reader);
  /// LMDB's code.
  int begin_reader(MDB_txn** txn) const noexcept;

  /// The read transactions of some of the threads: with one lock for all, many threads read half as much as one.
  struct alignas(stripe_alignment) Stripe {
    mutable std::mutex mutex;
    std::condition_variable published;
    std::vector<std::unique_ptr<detail::ReadState>> idle;
    detail::ReadState* oldest = nullptr;
    detail::ReadState* newest = nullptr;
    std::size_t announced = 0;  ///< 0: none
    std::shared_ptr<const Catalog> catalog = std::make_shared<const Catalog>();

    void link(detail::ReadState* reader) noexcept;
    void unlink(detail::ReadState* reader) noexcept;
  };

  // Closes before the claim ends: members are destroyed from the last to the first.
  FileClaim claim_;
  lmdb::Env env_;
  const std::uint64_t fork_generation_ = fork_generation();
  const std::filesystem::path directory_;
  const unsigned readers_max_;
  MDB_dbi reserved_ = 0;
  std::uint64_t extended_bytes_ = 0;  ///< the file's length, as far as extend() knows

  mutable std::mutex held_mutex_;
  std::optional<Pin> held_;  // guarded by held_mutex_
  struct Counted {
    std::size_t first = 0;  ///< transaction whose freed pages were counted, with those of all after it
    std::size_t next = 0;   ///< the first that is not counted yet
    std::uint64_t pages = 0;
  };
  std::uint64_t bytes_freed_since(std::size_t first, Counted& counted) const;
  mutable std::mutex counting_mutex_;
  mutable Counted pinned_counted_;  // guarded by counting_mutex_
  mutable Counted held_counted_;    // guarded by counting_mutex_
  std::array<Stripe, stripe_count> stripes_;
  std::atomic<unsigned> open_ = 0;
};

}  // namespace flotilla::state
