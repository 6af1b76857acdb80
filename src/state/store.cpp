#include "state/store.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <limits>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "base/log_sink.hpp"
#include "state/content_hash.hpp"
#include "state/directory.hpp"
#include "state/environment.hpp"
#include "state/rows.hpp"
#include "state/sessions.hpp"
#include "state/txn_state.hpp"

namespace flotilla::state {
namespace {

/// Starts over of one batch because a command failed after it wrote; past it the batch is halved.
constexpr int restarts_max = 8;
/// Commits between two sweeps of the reader table: the slot of another process that died while it read keeps LMDB from
/// using any page again that it could see.
constexpr std::uint64_t commits_per_sweep = 1024;
/// Steps in which a checkpoint's pages go to the disk, and when one of them is taken to have kept it busy.
constexpr std::uint64_t write_out_bytes = 1u << 20;
constexpr std::chrono::nanoseconds write_out_noticed = std::chrono::microseconds(100);
constexpr std::chrono::nanoseconds write_out_pause_max = std::chrono::milliseconds(20);
/// Where not even so much can be had, a write that was cut short was cut for space.
constexpr std::uint64_t probe_bytes = 1u << 20;
/// A command's error text is cut to this, here and in its session.
constexpr std::size_t error_text_bytes_max = 4096;

thread_local bool inside_command_ = false;

struct InsideCommand {
  InsideCommand() noexcept { inside_command_ = true; }
  ~InsideCommand() { inside_command_ = false; }
};

Error fault_of(int code, std::string_view doing) {
  return lmdb::error_of(code, doing);
}

/// An error as all members keep it: a code of ours, and a bounded text.
Error normalised(Error error) {
  Errc code = Errc::command_failed;
  // session_full is ours alone: a session remembers it as a refusal, not as a result.
  if (error.code().category() == category() && error != Errc::session_full) {
    code = static_cast<Errc>(error.code().value());
  }
  std::string text = error.message().substr(0, error_text_bytes_max);
  return {code, std::move(text)};
}

/// How a command ended.
struct Ending {
  Result<Bytes> result;
  bool replicated_text = true;  ///< false: the text of an exception, which may differ between members
};

/// How far a batch got.
enum class Progress : std::uint8_t {
  done,
  again,  ///< a command failed after it wrote: abort, and run again without it
  full,   ///< LMDB's transaction cannot grow any more: abort, and run it in parts
};

}  // namespace

bool inside_command() noexcept {
  return inside_command_;
}

class Store::NewCheckpoint {
 public:
  static Result<std::shared_ptr<NewCheckpoint>> begin(std::shared_ptr<Environment> env, const Applied& applied,
                                                      bool installed = false) {
    auto pin = env->pin();
    if (!pin) return fail(pin.error());
    auto file = FileHandle::open(env->directory() / "data.mdb", O_RDWR);
    if (!file) return fail(file.error());
    auto meta = read_meta_page(*file);
    if (!meta) return fail(meta.error());
    if (meta->txn_id() != pin->txn_id()) {
      return fail(Errc::damaged, fmt::format("the newest transaction of {} is {}, its meta page says {}",
                                             env->directory().string(), pin->txn_id(), meta->txn_id()));
    }
    return std::shared_ptr<NewCheckpoint>(
        new NewCheckpoint(std::move(env), std::move(*pin), std::move(*file),
                          Checkpoint{applied.index, applied.term, installed, std::move(*meta)}));
  }

  const std::shared_ptr<Environment>& env() const { return env_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }
  std::uint64_t used_bytes() const { return used_bytes_; }
  Result<void> make_durable(const std::function<bool()>& hurry, bool sync) {
    if (sync) {
      write_out(hurry);
      // Whatever the reason: pages may be lost that the system calls clean from now on. So never disk_full.
      if (const int code = mdb_env_sync(env_->handle(), 1); code != 0) {
        return fail(Errc::io_error, fmt::format("sync the database: {}", mdb_strerror(code)));
      }
    }
    return write_checkpoint(env_->directory(), checkpoint_, sync);
  }
  void hold() { env_->hold(std::move(pin_)); }

 private:
  NewCheckpoint(std::shared_ptr<Environment> env, Environment::Pin pin, FileHandle file, Checkpoint checkpoint)
      : env_(std::move(env)),
        pin_(std::move(pin)),
        file_(std::move(file)),
        checkpoint_(std::move(checkpoint)),
        used_bytes_(env_->used_bytes()) {}

  /// Hands the changed pages to the disk bit by bit: all at once would keep the log's syncs waiting behind them. A
  /// failure shows in the sync that follows.
  void write_out(const std::function<bool()>& hurry) const {
    for (std::uint64_t offset = 0; offset < used_bytes_; offset += write_out_bytes) {
      const auto begun = std::chrono::steady_clock::now();
      constexpr unsigned whole = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
      ::sync_file_range(file_.descriptor(), static_cast<off_t>(offset), write_out_bytes, whole);
      const auto took = std::chrono::steady_clock::now() - begun;
      if (took > write_out_noticed && !hurry()) std::this_thread::sleep_for(std::min(took, write_out_pause_max));
    }
  }

  std::shared_ptr<Environment> env_;
  Environment::Pin pin_;  // goes before env_
  FileHandle file_;
  Checkpoint checkpoint_;
  std::uint64_t used_bytes_;
};

class Store::Impl {
 public:
  Impl(const StoreOptions& options, Commands commands)
      : options_(options), commands_(std::move(commands)), log_sink_(log_sink_or_default(options.log_sink)) {}

  Result<void> open();
  void close();
  Result<std::vector<Outcome>> apply(std::span<const raft::Entry> entries);
  Result<void> install(const std::filesystem::path& directory, const std::function<Result<void>()>& publish);
  Result<void> copy(const std::filesystem::path& path, std::uint64_t reserve_bytes) const;
  Result<void> compact_to(const std::filesystem::path& directory, std::uint64_t reserve_bytes) const;
  Result<void> adopt(Impl& other, const std::function<Result<void>()>& publish);
  const StoreOptions& options() const noexcept { return options_; }
  Result<std::shared_ptr<NewCheckpoint>> begin_checkpoint();
  Result<Index> finish_checkpoint(NewCheckpoint& checkpoint, const std::function<bool()>& hurry);
  std::optional<Error> checkpoint_fault() const {
    const std::lock_guard lock(env_mutex_);
    return checkpoint_fault_;
  }
  Checkpoint last_checkpoint() const {
    const std::lock_guard lock(env_mutex_);
    return checkpoint_;
  }
  std::uint64_t grown_bytes() const;
  std::optional<std::vector<Outcome>> remembered(std::uint64_t session) const;

  /// Thread: any.
  std::shared_ptr<Environment> env() const {
    const std::lock_guard lock(env_mutex_);
    return env_;
  }
  /// The same for those who read, who must not keep the member waiting, nor each other. Thread: any.
  std::shared_ptr<Environment> env_for_reading() const {
    const ReadersEnv& mine = readers_envs_[stripe_of_this_thread()];
    const std::lock_guard lock(mine.mutex);
    return mine.env;
  }
  /// The one in use, and those that only their readers still hold.
  std::vector<std::shared_ptr<Environment>> all_envs() const;
  const Commands& commands() const noexcept { return commands_; }
  const Applied& applied() const noexcept { return applied_; }
  Index applied_index() const noexcept { return Index{applied_index_.load(std::memory_order_acquire)}; }
  std::shared_ptr<const Nodes> nodes() const {
    const std::lock_guard lock(nodes_mutex_);
    return known_nodes_;
  }

 private:
  /// All that one LMDB transaction changes. Thrown away whole when it aborts.
  struct Batch {
    Batch(lmdb::Txn owner, MDB_dbi reserved, std::shared_ptr<const Catalog> catalog, const Applied& before)
        : txn(std::move(owner)), state(txn.get(), reserved, std::move(catalog)), applied(before) {}
    lmdb::Txn txn;
    detail::WriteState state;  // before txn in destruction: its cursors go first
    Applied applied;
    bool configuration_changed = false;
    std::vector<Outcome> outcomes;
  };

  /// An open environment and what of it is kept in memory.
  struct Loaded {
    std::shared_ptr<Environment> env;
    Applied applied;
    Sessions sessions;
    Checkpoint checkpoint;
  };
  /// Opens `directory` as of its checkpoint, or makes a database with one.
  Result<Loaded> load(const std::filesystem::path& directory) const;
  /// Makes the reserved table or reads it, and opens all tables.
  static Result<Loaded> load_rows(std::shared_ptr<Environment> env);

  static Result<MDB_dbi> open_reserved(MDB_txn* txn, bool& made);

  static Result<Catalog> load_tables(MDB_txn* txn, const Rows& rows);
  void use(Loaded loaded);
  void give_to_readers(const std::shared_ptr<Environment>& env);

  Result<void> apply_or_run_out_of_memory(std::span<const raft::Entry> entries, std::vector<Outcome>& outcomes);
  Result<void> apply_range(std::span<const raft::Entry> entries, std::vector<Outcome>& outcomes);
  Result<Progress> run_and_commit(std::span<const raft::Entry> entries, Batch& batch);
  Result<Progress> run(std::span<const raft::Entry> entries, Batch& batch);
  Error short_of_space(const Error& error) const;
  Result<Progress> run_entry(const raft::Entry& entry, Batch& batch);
  Result<void> apply_configuration(const raft::Entry& entry, Batch& batch);
  Result<void> apply_session(const raft::Entry& entry, Batch& batch);
  Result<Progress> apply_command(const raft::Entry& entry, Batch& batch);
  Result<Ending> call(const CommandFn& command, const raft::Entry& entry, Batch& batch);
  Result<void> commit(Batch& batch);
  Result<void> abort(Batch& batch);
  void publish_nodes();

  const StoreOptions options_;
  Commands commands_;  // changed by close() alone
  const LogSink log_sink_;

  mutable std::mutex env_mutex_;
  std::shared_ptr<Environment> env_;  // written with env_mutex_, by the apply thread, and by close() after it
  /// env_ for some of the threads that read.
  struct alignas(stripe_alignment) ReadersEnv {
    mutable std::mutex mutex;
    std::shared_ptr<Environment> env;
  };
  std::array<ReadersEnv, stripe_count> readers_envs_;
  mutable std::vector<std::weak_ptr<Environment>> past_;  // guarded by env_mutex_
  Checkpoint checkpoint_;                                 // guarded by env_mutex_: of env_
  std::optional<Error> checkpoint_fault_;                 // guarded by env_mutex_: of env_; no other may be tried
  std::uint64_t checkpoint_used_bytes_ = 0;               // guarded by env_mutex_: of env_ when it was begun

  Applied applied_;
  std::atomic<std::uint64_t> applied_index_{0};
  Sessions sessions_;
  mutable std::mutex nodes_mutex_;
  std::shared_ptr<const Nodes> known_nodes_;  // guarded by nodes_mutex_: sessions_.nodes() as of the last commit
  std::uint64_t commits_ = 0;
  std::optional<Error> fault_;
  /// Commands of the batch in hand that failed after they wrote, by index. They fail again whenever what is before them
  /// is run again, so they are not.
  std::map<std::uint64_t, Ending> failed_;
  CommandPayload command_;  // here for its memory
};

// --- Opening

Result<std::unique_ptr<Store>> Store::open(const StoreOptions& options, Commands commands) {
  if (auto checked = commands.check(); !checked) return fail(checked.error());
  auto impl = std::make_unique<Impl>(options, std::move(commands));
  if (auto opened = impl->open(); !opened) return fail(opened.error());
  return std::unique_ptr<Store>(new Store(std::move(impl)));
}

Result<MDB_dbi> Store::Impl::open_reserved(MDB_txn* txn, bool& made) {
  MDB_dbi dbi = 0;
  int code = mdb_dbi_open(txn, reserved_table, 0, &dbi);
  made = code == MDB_NOTFOUND;
  if (made) {
    MDB_stat stat{};
    MDB_dbi main = 0;
    code = mdb_dbi_open(txn, nullptr, 0, &main);
    if (code == 0) code = mdb_stat(txn, main, &stat);
    if (code != 0) return fail(fault_of(code, "look into the database"));
    if (stat.ms_entries != 0) return fail(Errc::damaged, "the database was made by something else");
    code = mdb_dbi_open(txn, reserved_table, MDB_CREATE, &dbi);
  }
  if (code != 0) return fail(fault_of(code, "open the reserved table"));
  return dbi;
}

/// A new database has less than this before its first checkpoint: LMDB's two meta pages, and the reserved table.
constexpr std::uint64_t new_bytes_max = 64u << 10;

Result<std::optional<Checkpoint>> Store::checkpoint_of(const std::filesystem::path& directory) {
  auto checkpoint = read_checkpoint(directory);
  if (checkpoint) return std::optional(std::move(*checkpoint));
  if (!(checkpoint.error() == Errc::not_found)) return fail(checkpoint.error());
  std::error_code code;
  const auto bytes = std::filesystem::file_size(directory / "data.mdb", code);
  if (!code && bytes > 0) {
    return fail(Errc::damaged, fmt::format("{} has no checkpoint beside its data.mdb: nothing says which of its pages "
                                           "are whole",
                                           directory.string()));
  }
  return std::optional<Checkpoint>();
}

Result<void> Store::check_taken_back(const std::filesystem::path& directory, const Checkpoint& checkpoint,
                                     std::size_t txn_id, const Applied& applied) {
  if (txn_id == checkpoint.meta.txn_id() && applied.index == checkpoint.index && applied.term == checkpoint.term) {
    return {};
  }
  return fail(Errc::damaged,
              fmt::format("{} is not as its checkpoint says: it stands at {} (term {}) instead of {} (term {})",
                          directory.string(), applied.index.value, applied.term.value, checkpoint.index.value,
                          checkpoint.term.value));
}

Result<Store::Impl::Loaded> Store::Impl::load(const std::filesystem::path& directory) const {
  auto checkpoint = checkpoint_of(directory);
  if (!checkpoint) return fail(checkpoint.error());
  const bool made = !checkpoint->has_value();

  // A killed process may have left its name visible and not yet durable: if it went with a power loss, the one before
  // would be back, and its pages used again.
  if (!made && options_.sync) {
    if (auto synced = sync_directory(directory); !synced) return fail(synced.error());
  }
  EnvironmentOptions wanted{directory, options_.map_size, options_.readers_max, {}};
  if (!made) wanted.back_to = (*checkpoint)->meta;
  auto env = Environment::open(wanted);
  if (!env) return fail(env.error());
  if (made) {
    auto loaded = load_rows(*env);
    if (!loaded) return fail(loaded.error());
    auto first = NewCheckpoint::begin(*env, loaded->applied);
    if (!first) return fail(first.error());
    if (auto done = (*first)->make_durable([] { return true; }, options_.sync); !done) return fail(done.error());
    loaded->checkpoint = (*first)->checkpoint();
    (*first)->hold();
    if (options_.sync) {
      auto synced = sync_directory(std::filesystem::absolute(directory / "..").lexically_normal());
      if (!synced) return fail(synced.error());
    }
    return loaded;
  }
  // Before the first write transaction, which would otherwise use pages that the checkpoint needs.
  auto pin = (*env)->pin();
  if (!pin) return fail(pin.error());
  const std::size_t txn_id = pin->txn_id();
  (*env)->hold(std::move(*pin));
  auto loaded = load_rows(*env);
  if (!loaded) return fail(loaded.error());
  if (auto as_said = check_taken_back(directory, **checkpoint, txn_id, loaded->applied); !as_said) {
    return fail(as_said.error());
  }
  loaded->checkpoint = std::move(**checkpoint);
  return loaded;
}

Result<bool> Store::unused(const std::filesystem::path& directory) {
  const auto checkpoint = read_checkpoint(directory);
  if (checkpoint) return checkpoint->index <= Index{1};
  if (checkpoint.error() != Errc::not_found) return fail(checkpoint.error());
  std::error_code code;
  const auto bytes = std::filesystem::file_size(directory / "data.mdb", code);
  if (code == std::errc::no_such_file_or_directory) return true;
  if (code) return fail(fault_of(code.value(), fmt::format("look at the database in {}", directory.string())));
  return bytes <= new_bytes_max;
}

Result<Store::Impl::Loaded> Store::Impl::load_rows(std::shared_ptr<Environment> env) {
  auto txn = lmdb::Txn::begin_write(env->handle());  // goes before the environment does
  if (!txn) return fail(txn.error());
  bool made = false;
  const auto dbi = open_reserved(txn->get(), made);
  if (!dbi) return fail(dbi.error());
  const Rows rows(txn->get(), *dbi);
  int code = 0;
  if (made) {
    code = rows.put(format_key, encode_format());
    if (code == 0) code = rows.put(applied_key, encode(AppliedRow{}));
    if (code != 0) return fail(fault_of(code, "make the reserved table"));
  }
  auto applied = read_applied(rows);
  if (!applied) return fail(applied.error());
  Loaded loaded{std::move(env), std::move(*applied), {}, {}};

  if (!loaded.sessions.load(rows, code)) return fail(Errc::damaged, "a session row is malformed");
  if (code != 0) return fail(fault_of(code, "read the sessions"));
  auto catalog = load_tables(txn->get(), rows);
  if (!catalog) return fail(catalog.error());
  if (auto committed = txn->commit(); !committed) return fail(committed.error());
  loaded.env->set_reserved(*dbi);
  loaded.env->publish(std::make_shared<const Catalog>(std::move(*catalog)));
  return loaded;
}

void Store::Impl::use(Loaded loaded) {
  std::shared_ptr<Environment> before = std::move(loaded.env);  // goes without the lock: that may take a while
  {
    const std::lock_guard lock(env_mutex_);
    if (env_) past_.push_back(env_);
    env_.swap(before);
    checkpoint_ = std::move(loaded.checkpoint);
    checkpoint_fault_.reset();
    checkpoint_used_bytes_ = env_->used_bytes();
  }
  give_to_readers(env_);
  applied_ = std::move(loaded.applied);
  sessions_ = std::move(loaded.sessions);
  applied_index_.store(applied_.index.value, std::memory_order_release);
  publish_nodes();
}

/// To all of them at once: a thread that heard from another what that has read finds nothing older.
void Store::Impl::give_to_readers(const std::shared_ptr<Environment>& env) {
  std::array<std::unique_lock<std::mutex>, stripe_count> locks;
  for (std::size_t i = 0; i < stripe_count; ++i) locks[i] = std::unique_lock(readers_envs_[i].mutex);
  for (ReadersEnv& one : readers_envs_) one.env = env;  // what it was is held by the caller
}

void Store::Impl::close() {
  give_to_readers(nullptr);
  commands_ = {};
  sessions_ = {};
  failed_.clear();
  command_ = {};
  std::shared_ptr<Environment> last;  // goes without the lock
  const std::lock_guard lock(env_mutex_);
  last.swap(env_);
}

Result<void> Store::Impl::open() {
  auto loaded = load(options_.directory);
  if (!loaded) return fail(loaded.error());
  use(std::move(*loaded));
  return {};
}

Result<Catalog> Store::Impl::load_tables(MDB_txn* txn, const Rows& rows) {
  Catalog catalog;
  bool whole = true;
  int code = rows.each(table_prefix, [&](std::string_view key, std::string_view value) {
    const auto kind = decode_kind(value);
    whole = kind.has_value();
    if (whole) catalog.emplace(key.substr(table_prefix.size()), TableEntry{0, *kind, 0});
    return whole;
  });
  if (code != 0) return fail(fault_of(code, "read the table rows"));
  if (!whole) return fail(Errc::damaged, "a table row is malformed");
  for (auto& [name, entry] : catalog) {
    unsigned flags = 0;
    // Without flags LMDB opens a table as it was made.
    code = mdb_dbi_open(txn, name.c_str(), 0, &entry.dbi);
    if (code == 0) code = mdb_dbi_flags(txn, entry.dbi, &flags);
    if (code == MDB_NOTFOUND) return fail(Errc::damaged, fmt::format("table {} is recorded but missing", name));
    if (code != 0) return fail(fault_of(code, "open a table"));
    const auto kind = (flags & MDB_DUPSORT) != 0 ? TableKind::sorted_duplicates : TableKind::plain;
    if (kind != entry.kind) return fail(Errc::damaged, fmt::format("table {} is not of its recorded kind", name));
  }
  // A table of another's making would be found full where all other members make it anew.
  MDB_stat stat{};
  MDB_dbi main = 0;
  code = mdb_dbi_open(txn, nullptr, 0, &main);
  if (code == 0) code = mdb_stat(txn, main, &stat);
  if (code != 0) return fail(fault_of(code, "look into the database"));
  if (stat.ms_entries != catalog.size() + 1)
    return fail(Errc::damaged, "the database has tables that are not recorded");
  return catalog;
}

// --- Applying

Result<std::vector<Outcome>> Store::Impl::apply(std::span<const raft::Entry> entries) {
  if (env_->forked()) return fail(Error(Errc::forked));
  if (fault_) return fail(*fault_);
  while (!entries.empty() && entries.front().index <= applied_.index) entries = entries.subspan(1);
  std::vector<Outcome> outcomes;
  if (entries.empty()) return outcomes;
  FLOTILLA_ASSERT(entries.front().index == applied_.index.next());
  FLOTILLA_ASSERT(entries.back().index - entries.front().index == entries.size() - 1);
  outcomes.reserve(entries.size());
  failed_.clear();
  fault_.emplace(Errc::stopped, "applying was interrupted");  // by an exception: what is in memory may be out of step
  const auto done = apply_or_run_out_of_memory(entries, outcomes);
  if (!done && done.error() != Errc::disk_full) {
    fault_ = done.error();
    return fail(*fault_);
  }
  fault_.reset();
  FLOTILLA_ASSERT(!done || applied_.index == entries.back().index);
  if (!done && applied_.index < entries.front().index) return fail(done.error());
  return outcomes;
}

Result<void> Store::Impl::install(const std::filesystem::path& directory,
                                  const std::function<Result<void>()>& publish) {
  if (env_->forked()) return fail(Error(Errc::forked));
  if (fault_) return fail(*fault_);
  auto loaded = load(directory);
  if (!loaded) return fail(loaded.error());
  if (loaded->applied.index <= applied_.index) {
    return fail(Errc::invalid_argument, fmt::format("the snapshot ends at {}, the database at {}",
                                                    loaded->applied.index.value, applied_.index.value));
  }
  if (auto published = publish(); !published) {
    if (published.error() != Errc::disk_full) fault_ = published.error();
    return published;
  }
  use(std::move(*loaded));
  return {};
}

Result<void> Store::Impl::copy(const std::filesystem::path& path, std::uint64_t reserve_bytes) const {
  const auto from = env();
  if (from->forked()) return fail(Error(Errc::forked));
  if (auto room = check_room(path.parent_path(), from->live_bytes(), reserve_bytes); !room) return room;
  auto file = FileHandle::open(path, O_WRONLY | O_CREAT | O_EXCL);
  if (!file) return fail(file.error());
  const int code = mdb_env_copyfd2(from->handle(), file->descriptor(), MDB_CP_COMPACT);
  if (code != 0) return fail(fault_of(code, fmt::format("copy the database to {}", path.string())));
  return {};
}

Result<void> Store::Impl::compact_to(const std::filesystem::path& directory, std::uint64_t reserve_bytes) const {
  const std::filesystem::path path = directory / "data.mdb";
  std::error_code code;
  std::filesystem::create_directory(directory, code);
  if (!code) std::filesystem::permissions(directory, std::filesystem::perms::owner_all, code);
  if (code) return fail(fault_of(code.value(), fmt::format("make {}", directory.string())));
  const Checkpoint before = last_checkpoint();
  if (auto copied = copy(path, reserve_bytes); !copied) return fail(copied.error());
  const auto applied = read_applied(path);
  if (!applied) return fail(applied.error());
  const auto file = FileHandle::open(path, O_RDONLY);
  if (!file) return fail(file.error());
  auto meta = read_meta_page(*file);
  if (!meta) return fail(meta.error());
  const bool installed = before.installed && before.index == applied->index;
  const Checkpoint checkpoint{applied->index, applied->term, installed, std::move(*meta)};
  return write_checkpoint(directory, checkpoint, false);
}

Result<void> Store::Impl::adopt(Impl& other, const std::function<Result<void>()>& publish) {
  if (env_->forked()) return fail(Error(Errc::forked));
  if (fault_) return fail(*fault_);
  FLOTILLA_ASSERT(!other.fault_ && other.applied_.index == applied_.index && other.applied_.term == applied_.term);
  if (auto published = publish(); !published) {
    if (published.error() != Errc::disk_full) fault_ = published.error();
    return published;
  }
  use(Loaded{std::move(other.env_), std::move(other.applied_), std::move(other.sessions_), other.last_checkpoint()});
  return {};
}

Result<std::shared_ptr<Store::NewCheckpoint>> Store::Impl::begin_checkpoint() {
  if (env_->forked()) return fail(Error(Errc::forked));
  if (fault_) return fail(*fault_);
  if (const auto lost = checkpoint_fault()) return fail(*lost);
  const Checkpoint before = last_checkpoint();
  // As long as nothing was applied to it, a received database is what it was: the log may not have followed yet.
  return NewCheckpoint::begin(env_, applied_, before.installed && before.index == applied_.index);
}

Result<Index> Store::Impl::finish_checkpoint(NewCheckpoint& checkpoint, const std::function<bool()>& hurry) {
  if (const auto lost = checkpoint_fault()) return fail(*lost);
  const auto done = checkpoint.make_durable(hurry, options_.sync);
  const std::lock_guard lock(env_mutex_);
  if (checkpoint.env() != env_) return Index{};  // its directory may be gone
  if (!done) {
    if (done.error() != Errc::disk_full) checkpoint_fault_ = done.error();
    return fail(done.error());
  }
  checkpoint.hold();
  checkpoint_ = checkpoint.checkpoint();
  checkpoint_used_bytes_ = checkpoint.used_bytes();
  return checkpoint_.index;
}

std::uint64_t Store::Impl::grown_bytes() const {
  const auto [env, before] = [&] {
    const std::lock_guard lock(env_mutex_);
    return std::pair(env_, checkpoint_used_bytes_);
  }();
  const std::uint64_t now = env->used_bytes();
  // Where there are pages to use again the file does not grow, and it soon will: they are used up.
  return std::max(now > before ? now - before : 0, env->held_bytes());
}

std::optional<std::vector<Outcome>> Store::Impl::remembered(std::uint64_t session) const {
  const Session* const open = sessions_.find(session);
  if (open == nullptr) return std::nullopt;
  std::vector<Outcome> outcomes;
  outcomes.reserve(open->results.size());
  for (const StoredResult& stored : open->results) {
    outcomes.push_back({{session, stored.sequence}, applied_.index, applied_.term, stored.result()});
  }
  return outcomes;
}

std::vector<std::shared_ptr<Environment>> Store::Impl::all_envs() const {
  const std::lock_guard lock(env_mutex_);
  std::vector<std::shared_ptr<Environment>> envs{env_};
  std::erase_if(past_, [](const auto& past) { return past.expired(); });
  for (const auto& past : past_) {
    if (auto env = past.lock()) envs.push_back(std::move(env));
  }
  return envs;
}

Result<void> Store::Impl::apply_or_run_out_of_memory(std::span<const raft::Entry> entries,
                                                     std::vector<Outcome>& outcomes) {
  try {
    return apply_range(entries, outcomes);
  } catch (const std::bad_alloc&) {
    return fail(Errc::stopped, "out of memory while applying");
  }
}

Result<void> Store::Impl::apply_range(std::span<const raft::Entry> entries, std::vector<Outcome>& outcomes) {
  FLOTILLA_ASSERT(!entries.empty());
  auto progress = Progress::again;
  for (int runs = 0; progress == Progress::again && runs < restarts_max; ++runs) {
    auto txn = lmdb::Txn::begin_write(env_->handle());
    if (!txn) return fail(txn.error());
    Batch batch(std::move(*txn), env_->reserved(), env_->catalog(), applied_);
    batch.outcomes.reserve(entries.size());
    const auto ran = run_and_commit(entries, batch);
    if (!ran && ran.error() != Errc::disk_full) return fail(ran.error());
    if (ran && *ran == Progress::done) {
      for (Outcome& outcome : batch.outcomes) outcomes.push_back(std::move(outcome));
      return {};
    }
    if (auto aborted = abort(batch); !aborted) {
      // What LMDB could not take back shows as another error than what came before.
      if (ran) return aborted;
      return fail(Error(aborted.error().code(), ran.error().message() + "; " + aborted.error().message()));
    }
    if (!ran) return fail(ran.error());
    progress = *ran;
  }
  if (entries.size() == 1) return fail(Errc::io_error, "one command fills a whole LMDB transaction");
  const std::size_t half = entries.size() / 2;
  if (auto first = apply_range(entries.first(half), outcomes); !first) return first;
  return apply_range(entries.subspan(half), outcomes);
}

Result<Progress> Store::Impl::run_and_commit(std::span<const raft::Entry> entries, Batch& batch) {
  const auto ran = run(entries, batch);
  if (!ran) return fail(short_of_space(ran.error()));
  if (*ran != Progress::done) return ran;
  if (auto committed = commit(batch); !committed) return fail(short_of_space(committed.error()));
  return Progress::done;
}

/// LMDB says EIO of a write that the system cut short, which is how a full disk or quota shows first.
Error Store::Impl::short_of_space(const Error& error) const {
  if (error != Errc::io_error) return error;
  const std::filesystem::path probe = env_->directory() / "space.tmp";
  std::error_code ignored;
  std::filesystem::remove(probe, ignored);
  auto room = FileHandle::open(probe, O_WRONLY | O_CREAT | O_EXCL).and_then([](FileHandle file) {
    return file.reserve(probe_bytes);
  });
  std::filesystem::remove(probe, ignored);
  return !room && room.error() == Errc::disk_full ? room.error() : error;
}

Result<Progress> Store::Impl::run(std::span<const raft::Entry> entries, Batch& batch) {
  for (const raft::Entry& entry : entries) {
    FLOTILLA_ASSERT(entry.index == batch.applied.index.next());
    const auto progress = run_entry(entry, batch);
    if (!progress || *progress != Progress::done) return progress;
    batch.applied.index = entry.index;
    batch.applied.term = entry.term;
    // The core stamps entries so; a member whose leader did not would disagree with none, as all take the larger.
    batch.applied.time = std::max(batch.applied.time, entry.time);
  }
  return Progress::done;
}

Result<Progress> Store::Impl::run_entry(const raft::Entry& entry, Batch& batch) {
  switch (entry.type) {
    case raft::EntryType::noop: return Progress::done;
    case raft::EntryType::command: return apply_command(entry, batch);
    case raft::EntryType::configuration: return apply_configuration(entry, batch).map([] { return Progress::done; });
    case raft::EntryType::session: return apply_session(entry, batch).map([] { return Progress::done; });
  }
  return fail(Errc::stopped, fmt::format("entry {} is of type {}, which this build does not know", entry.index.value,
                                         static_cast<unsigned>(entry.type)));
}

Result<void> Store::Impl::apply_configuration(const raft::Entry& entry, Batch& batch) {
  auto configuration = raft::decode_configuration(entry.payload.view());
  if (!configuration) return fail(Errc::stopped, fmt::format("configuration {} is malformed", entry.index.value));
  sessions_.end_removed(batch.applied.configuration, *configuration);
  batch.applied.configuration = std::move(*configuration);
  batch.applied.configuration_index = entry.index;
  batch.configuration_changed = true;
  return {};
}

Result<void> Store::Impl::apply_session(const raft::Entry& entry, Batch& batch) {
  const auto payload = decode_session(entry.payload.view());
  if (!payload) return fail(Errc::stopped, fmt::format("session entry {} is malformed", entry.index.value));
  batch.outcomes.push_back({{payload->session, 0}, entry.index, entry.term, sessions_.open(*payload)});
  return {};
}

Result<Progress> Store::Impl::apply_command(const raft::Entry& entry, Batch& batch) {
  if (!decode_command(entry.payload.view(), command_)) {
    return fail(Errc::stopped, fmt::format("command entry {} is malformed", entry.index.value));
  }
  const auto answer = [&](Result<Bytes> result) {
    batch.outcomes.push_back({command_.call, entry.index, entry.term, std::move(result)});
    return Progress::done;
  };
  // A member without the command must stop before it answers anything about it, alike for repeated calls.
  const CommandFn* const command = commands_.find(command_.name);
  if (command == nullptr) {
    return fail(Errc::stopped, fmt::format("entry {} runs the command {}, which is not registered here",
                                           entry.index.value, command_.name));
  }
  if (auto known = sessions_.admit(command_)) return answer(std::move(*known));

  const auto failed = failed_.find(entry.index.value);
  const bool skipped = failed != failed_.end();
  auto ending = skipped ? Result<Ending>(failed->second) : call(*command, entry, batch);
  if (!ending) {
    if (batch.state.fault_code() == MDB_TXN_FULL) return Progress::full;
    return fail(ending.error());
  }
  if (!ending->result && !skipped && batch.state.wrote()) {
    failed_.emplace(entry.index.value, std::move(*ending));
    return Progress::again;
  }
  if (!ending->result && ending->result.error() == Errc::session_full)
    return answer(sessions_.refuse_full(command_.call));
  sessions_.store(command_.call, ending->result, ending->replicated_text);
  return answer(std::move(ending->result));
}

Result<Ending> Store::Impl::call(const CommandFn& command, const raft::Entry& entry, Batch& batch) {
  detail::WriteState& state = batch.state;
  state.begin_command(entry.term, entry.index, std::max(batch.applied.time, entry.time));
  const auto assertions = assertion_failures();
  Ending ending;
  try {
    const InsideCommand inside;
    WriteTxn txn(&state);
    ending.result = command(txn, Args(command_.args));
    if (!ending.result) ending.result = fail(normalised(ending.result.error()));
  } catch (const std::bad_alloc&) {
    state.end_command();
    return fail(Errc::stopped,
                fmt::format("out of memory in command {} of entry {}", command_.name, entry.index.value));
  } catch (const std::exception& exception) {
    ending = {fail(Errc::command_failed, std::string(exception.what()).substr(0, error_text_bytes_max)), false};
  } catch (...) {
    ending = {fail(Errc::command_failed, "the command threw something that is not a std::exception"), false};
  }
  state.end_command();
  // A broken invariant of ours that passed through the command's frames, as an exception of the handler's.
  if (assertion_failures() != assertions) {
    return fail(Errc::stopped,
                fmt::format("an invariant broke in command {} of entry {}", command_.name, entry.index.value));
  }
  if (!ending.replicated_text) {
    log_line(log_sink_, LogLevel::info, "command {} of entry {} threw: {}", command_.name, entry.index.value,
             ending.result.error().message());
  }
  if (state.fault()) return fail(*state.fault());
  if (!ending.result) return ending;
  if (state.misuse()) {
    ending.result = fail(*state.misuse());
  } else if (ending.result->size() > Sessions::result_bytes_max) {
    ending.result = fail(Errc::command_failed, fmt::format("the result has {} bytes, over the limit of {}",
                                                           ending.result->size(), Sessions::result_bytes_max));
  } else if (!sessions_.fits(command_.call.session, ending.result->size())) {
    ending.result = fail(Error(Errc::session_full));
  }
  return ending;
}

Result<void> Store::Impl::commit(Batch& batch) {
  const Rows rows(batch.txn.get(), env_->reserved());
  const Applied& applied = batch.applied;
  int code = sessions_.write(rows);
  if (code == 0) {
    code = rows.put(applied_key,
                    encode(AppliedRow{applied.index, applied.term, applied.time, applied.configuration_index}));
  }
  if (code == 0 && batch.configuration_changed) {
    code = rows.put(configuration_key, raft::encode(applied.configuration));
  }
  if (code != 0) return fail(fault_of(code, "record what was applied"));
  const bool made_tables = batch.state.made_tables();
  if (made_tables) env_->announce(batch.txn.id());
  if (auto committed = batch.txn.commit(); !committed) {
    if (made_tables) env_->withdraw();
    return committed;
  }
  if (made_tables) env_->publish(batch.state.staged_catalog());
  if (++commits_ % commits_per_sweep == 0) env_->sweep_readers();
  env_->extend();
  const bool nodes_changed = sessions_.nodes_changed();
  sessions_.committed();
  if (nodes_changed) publish_nodes();
  applied_ = std::move(batch.applied);
  applied_index_.store(applied_.index.value, std::memory_order_release);
  return {};
}

void Store::Impl::publish_nodes() {
  auto nodes = std::make_shared<const Nodes>(sessions_.nodes());
  const std::lock_guard lock(nodes_mutex_);
  known_nodes_ = std::move(nodes);
}

Result<void> Store::Impl::abort(Batch& batch) {
  batch.txn.abort();
  auto txn = lmdb::Txn::begin_write(env_->handle());
  if (!txn) return fail(txn.error());
  int code = 0;
  const bool whole = sessions_.roll_back(Rows(txn->get(), env_->reserved()), code);
  if (!whole) return fail(Errc::damaged, "a session row is malformed");
  if (code != 0) return fail(fault_of(code, "read the sessions"));
  return {};
}

// --- Store

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::~Store() = default;

Result<std::vector<Outcome>> Store::apply(std::span<const raft::Entry> entries) {
  return impl_->apply(entries);
}

Result<std::shared_ptr<Store::NewCheckpoint>> Store::begin_checkpoint() {
  return impl_->begin_checkpoint();
}

Result<Index> Store::finish_checkpoint(NewCheckpoint& checkpoint, const std::function<bool()>& hurry) {
  return impl_->finish_checkpoint(checkpoint, hurry);
}

Result<void> Store::checkpoint() {
  auto begun = begin_checkpoint();
  if (!begun) return fail(begun.error());
  return finish_checkpoint(**begun, [] { return true; }).map([](Index) {});
}

Checkpoint Store::last_checkpoint() const {
  return impl_->last_checkpoint();
}

std::uint64_t Store::grown_bytes() const {
  return impl_->grown_bytes();
}

const Applied& Store::applied() const {
  return impl_->applied();
}

Index Store::applied_index() const {
  return impl_->applied_index();
}

Result<SnapshotCopy> Store::copy(const std::filesystem::path& path, std::uint64_t reserve_bytes) {
  if (auto copied = impl_->copy(path, reserve_bytes); !copied) {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    return fail(copied.error());
  }
  return SnapshotCopy::take(path);
}

Result<void> Store::compact_to(const std::filesystem::path& directory, std::uint64_t reserve_bytes) {
  auto made = impl_->compact_to(directory, reserve_bytes);
  std::error_code ignored;
  if (!made) std::filesystem::remove_all(directory, ignored);
  return made;
}

Result<std::unique_ptr<Store>> Store::open_compacted(const std::filesystem::path& directory) const {
  StoreOptions options = impl_->options();
  options.directory = directory;
  auto made = open(options, impl_->commands());
  // Nothing would be taken back to where it stands: what it catches up with need not go to new pages.
  if (made) (*made)->impl_->env()->let_go();
  return made;
}

Result<void> Store::adopt(Store& other, const std::function<Result<void>()>& publish) {
  return impl_->adopt(*other.impl_, publish);
}

Result<void> Store::install(const std::filesystem::path& directory, const std::function<Result<void>()>& publish) {
  return impl_->install(directory, publish);
}

std::optional<std::vector<Outcome>> Store::remembered(std::uint64_t session) const {
  return impl_->remembered(session);
}

void Store::close() {
  impl_->close();
}

Result<ReadTxn> Store::read() {
  auto env = impl_->env_for_reading();
  if (env == nullptr) return fail(Errc::closed, "the database was closed");
  auto snapshot = Environment::begin_read(std::move(env));
  if (!snapshot) return fail(snapshot.error());
  return ReadTxn(std::move(*snapshot));
}

Result<std::uint64_t> Store::content_hash(const ReadTxn& txn) {
  ContentHash hash;
  for (const std::string& name : txn.tables()) {
    const Table table = txn.table(name);
    hash.table(name, table.kind(), table.size());
    for (const auto& [key, value] : table.all()) hash.pair(key, value);
  }
  if (txn.error()) return fail(*txn.error());
  return hash.digest();
}

std::vector<std::string> Store::command_names() const {
  std::vector<std::string> names;
  for (const auto& [name, run] : impl_->commands().all()) names.push_back(name);
  return names;
}

std::shared_ptr<const Nodes> Store::nodes() const {
  return impl_->nodes();
}

std::uint64_t Store::file_bytes() const {
  mdb_filehandle_t descriptor = -1;
  struct stat info {};
  const auto env = impl_->env();
  if (env->forked() || mdb_env_get_fd(env->handle(), &descriptor) != 0) return 0;
  if (::fstat(descriptor, &info) != 0) return 0;
  return static_cast<std::uint64_t>(info.st_size);
}

unsigned Store::readers() const {
  unsigned readers = 0;
  for (const auto& env : impl_->all_envs()) readers += env->readers();
  return readers;
}

std::uint64_t Store::pinned_bytes() const {
  const auto envs = impl_->all_envs();
  std::uint64_t bytes = envs.front()->pinned_bytes();
  for (std::size_t i = 1; i < envs.size(); ++i) bytes += envs[i]->used_bytes();
  return bytes;
}

std::chrono::milliseconds Store::oldest_reader_age() const {
  std::chrono::milliseconds age{0};
  for (const auto& env : impl_->all_envs()) age = std::max(age, env->oldest_reader_age());
  return age;
}

}  // namespace flotilla::state
