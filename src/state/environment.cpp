#include "state/environment.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "state/file.hpp"
#include "state/txn_state.hpp"

namespace flotilla::state {
namespace {

/// Finished read transactions kept for the next; each holds about 50 KB and a slot.
constexpr unsigned idle_readers_max = 64;
/// Slots of the reader table beyond the application's: for the member's own readers, for tools, and for those that are
/// idle while other threads need new ones.
constexpr unsigned reserved_readers = 8 + idle_readers_max;
static_assert(idle_readers_max % stripe_count == 0);
constexpr mode_t file_mode = 0600;
/// How far the file is kept ahead of what LMDB uses of it: a quarter of that, up to so much.
constexpr std::uint64_t ahead_bytes_max = 1u << 20;
constexpr std::size_t extension_bytes = 16u << 10;

/// Claimed files and the process that claimed each: a forked child inherits the map, but not the claims.
struct Registry {
  std::mutex mutex;
  std::map<FileId, pid_t> claims;
};
Registry& registry() {
  static auto* const instance = new Registry;  // never destroyed: environments may outlive static objects
  return *instance;
}

Error system_error(std::string_view doing, const std::filesystem::path& path, int code) {
  return lmdb::error_of(code, fmt::format("{} {}", doing, path.string()));
}

/// Makes the file if it is missing: LMDB takes an empty file for a new database, and only a file that is there can be
/// claimed. The data file carries no locks, so closing this descriptor drops none.
Result<void> ensure_file(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, file_mode);
  if (descriptor < 0) return fail(system_error("open", path, errno));
  ::close(descriptor);
  return {};
}

Result<void> ensure_directory(const std::filesystem::path& path) {
  std::error_code code;
  const bool made = std::filesystem::create_directories(path, code);
  if (code) return fail(system_error("create", path, code.value()));
  if (!made) return {};
  std::filesystem::permissions(path, std::filesystem::perms::owner_all, code);
  if (code) return fail(system_error("set the mode of", path, code.value()));
  return {};
}

/// Of the steady clock, at most some milliseconds ago, and cheap: each read transaction asks for it.
std::chrono::steady_clock::time_point just_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return std::chrono::steady_clock::time_point(std::chrono::seconds(now.tv_sec) +
                                               std::chrono::nanoseconds(now.tv_nsec));
}

std::size_t whole_pages(std::size_t bytes) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

Result<lmdb::Env> open_env(const EnvironmentOptions& options) {
  MDB_env* raw = nullptr;
  if (const int code = mdb_env_create(&raw); code != 0) return fail(lmdb::error_of(code, "create an environment"));
  lmdb::Env env(raw);
  int code = mdb_env_set_mapsize(raw, whole_pages(options.map_size));
  if (code == 0) code = mdb_env_set_maxreaders(raw, options.readers_max + reserved_readers);
  if (code == 0) code = mdb_env_set_maxdbs(raw, static_cast<MDB_dbi>(tables_max + 1));
  // NORDAHEAD: read-ahead leaves the file in the page cache as large folios, which makes every later write of a page
  // three times as dear (LIMITS A3).
  constexpr unsigned flags = MDB_NOTLS | MDB_NORDAHEAD | MDB_NOSYNC;
  if (code == 0) code = mdb_env_open(raw, options.directory.c_str(), flags, file_mode);
  if (code != 0) return fail(system_error("open the database in", options.directory, code));
  if (static_cast<std::size_t>(mdb_env_get_maxkeysize(raw)) < key_bytes_max) {
    return fail(Errc::version_unsupported, "this build of LMDB does not allow keys of 511 bytes");
  }
  return env;
}

struct Freed {
  std::uint64_t pages = 0;
  std::uint64_t page_bytes = 0;
  std::size_t next = 0;  ///< the first transaction that is not counted
};

/// By transaction `from` and later ones. A record of LMDB's list: the transaction; the number of pages, and they.
Freed freed_since(MDB_txn* txn, std::size_t from) {
  constexpr MDB_dbi free_pages = 0;
  Freed freed{.next = from};
  MDB_stat stat{};
  MDB_cursor* cursor = nullptr;
  if (mdb_stat(txn, free_pages, &stat) != 0 || mdb_cursor_open(txn, free_pages, &cursor) != 0) return freed;
  freed.page_bytes = stat.ms_psize;
  MDB_val key{sizeof from, &from};
  MDB_val value{};
  for (auto how = MDB_SET_RANGE; mdb_cursor_get(cursor, &key, &value, how) == 0; how = MDB_NEXT) {
    std::uint64_t pages = 0;
    std::memcpy(&freed.next, key.mv_data, sizeof freed.next);
    std::memcpy(&pages, value.mv_data, sizeof pages);
    freed.pages += pages;
    ++freed.next;
  }
  mdb_cursor_close(cursor);
  return freed;
}

/// A tool may look at the database for a moment. Longer than that is for whoever started it to end.
constexpr std::chrono::milliseconds lock_patience{2000};
constexpr std::chrono::milliseconds lock_poll{10};

/// LMDB maps the lock file and makes it full of holes, and a reader that finds no space for one ends the process. So it
/// gets one that has all its space; LMDB keeps the length. Another process may have it open already: nothing is
/// written.
Result<void> make_lock_file(const std::filesystem::path& path, unsigned readers_max) {
  constexpr std::uint64_t head_bytes = 4096;
  constexpr std::uint64_t reader_bytes = 64;
  auto file = FileHandle::open(path, O_RDWR | O_CREAT);
  if (!file) return fail(file.error());
  return file->reserve(head_bytes + (readers_max + reserved_readers) * reader_bytes);
}

/// Nobody else may have the environment open: its reader would not be seen by the new lock file. A lock file that is
/// left says nothing any more.
Result<void> take_over(const std::filesystem::path& directory, unsigned readers_max) {
  const std::filesystem::path path = directory / "lock.mdb";
  const auto until = std::chrono::steady_clock::now() + lock_patience;
  for (;;) {
    const auto holder = lock_holder(path);  // the claim says that it is not this one
    if (!holder) return fail(holder.error());
    if (*holder == 0) break;
    if (std::chrono::steady_clock::now() >= until) {
      return fail(Errc::in_use, fmt::format("{} is open in {}; nothing was changed", directory.string(),
                                            *holder > 0 ? fmt::format("process {}", *holder) : "another process"));
    }
    std::this_thread::sleep_for(lock_poll);
  }
  std::error_code code;
  std::filesystem::remove(path, code);
  if (code) return fail(system_error("remove", path, code.value()));
  return make_lock_file(path, readers_max);
}

}  // namespace

Result<pid_t> lock_holder(const std::filesystem::path& lock_path) {
  // Closing it drops locks of this process on it; it has none.
  auto file = FileHandle::open(lock_path, O_RDONLY);
  if (!file && file.error() == Errc::not_found) return 0;
  if (!file) return fail(file.error());
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = 0;  // LMDB locks the first byte for as long as the environment is open
  lock.l_len = 1;
  if (::fcntl(file->descriptor(), F_GETLK, &lock) != 0) return fail(system_error("ask who locks", lock_path, errno));
  if (lock.l_type == F_UNLCK) return 0;
  return lock.l_pid > 0 ? lock.l_pid : -1;
}

Result<FileClaim> FileClaim::of(const std::filesystem::path& file) {
  // A path alone: closing it drops no lock of LMDB's.
  const int descriptor = ::open(file.c_str(), O_PATH | O_CLOEXEC);
  struct stat info {};
  if (descriptor < 0 || ::fstat(descriptor, &info) != 0) {
    const int code = errno;
    if (descriptor >= 0) ::close(descriptor);
    return fail(system_error("open", file, code));
  }
  const FileId id{info.st_dev, info.st_ino};
  const std::lock_guard lock(registry().mutex);
  const auto [at, added] = registry().claims.try_emplace(id, ::getpid());
  if (!added && at->second == ::getpid()) {
    ::close(descriptor);
    return fail(Errc::in_use, fmt::format("{} is already open in this process", file.string()));
  }
  at->second = ::getpid();
  return FileClaim(id, descriptor);
}

FileClaim::FileClaim(FileClaim&& other) noexcept
    : id_(other.id_), descriptor_(std::exchange(other.descriptor_, -1)), held_(std::exchange(other.held_, false)) {}

FileClaim::~FileClaim() {
  if (held_) {
    const std::lock_guard lock(registry().mutex);
    registry().claims.erase(id_);
  }
  if (descriptor_ >= 0) ::close(descriptor_);
}

Result<std::shared_ptr<Environment>> Environment::open(const EnvironmentOptions& options) {
  const std::filesystem::path data = options.directory / "data.mdb";
  if (auto made = ensure_directory(options.directory); !made) return fail(made.error());
  std::error_code code;
  if (!options.back_to) {
    if (auto made = ensure_file(data); !made) return fail(made.error());
  } else if (!std::filesystem::exists(data, code) && !code) {
    return fail(Errc::damaged, fmt::format("{} is missing, and the checkpoint beside it is of it", data.string()));
  }

  auto claim = FileClaim::of(data);
  if (!claim) return fail(claim.error());
  if (auto taken = take_over(options.directory, options.readers_max); !taken) return fail(taken.error());
  if (options.back_to) {
    auto file = FileHandle::open(data, O_RDWR);
    if (!file) return fail(file.error());
    if (auto holds = check_roots(*file, *options.back_to); !holds) return fail(holds.error());
    if (auto written = write_meta_pages(*file, *options.back_to); !written) return fail(written.error());
  }
  auto env = open_env(options);
  if (!env) return fail(env.error());
  return std::shared_ptr<Environment>(new Environment(std::move(*env), std::move(*claim), options));
}

Environment::Environment(lmdb::Env env, FileClaim claim, const EnvironmentOptions& options)
    : claim_(std::move(claim)), env_(std::move(env)), directory_(options.directory), readers_max_(options.readers_max) {
  for (Stripe& stripe : stripes_) stripe.idle.reserve(idle_readers_max / stripe_count);
}

Environment::Pin::~Pin() {
  if (txn_ != nullptr && !environment_->forked()) mdb_txn_abort(txn_);
}

Result<Environment::Pin> Environment::pin() const {
  if (forked()) return fail(Error(Errc::forked));
  MDB_txn* txn = nullptr;
  if (const int code = begin_reader(&txn); code != 0) return fail(lmdb::error_of(code, "begin a read transaction"));
  return Pin(*this, txn);
}

void Environment::hold(Pin pin) {
  const std::lock_guard lock(held_mutex_);
  held_.reset();  // it is safe to let go: what `pin` holds is durable
  held_.emplace(std::move(pin));
}

void Environment::let_go() {
  const std::lock_guard lock(held_mutex_);
  held_.reset();
}

std::uint64_t Environment::used_bytes() const noexcept {
  MDB_envinfo info{};
  MDB_stat stat{};
  if (forked() || mdb_env_info(env_.get(), &info) != 0 || mdb_env_stat(env_.get(), &stat) != 0) return 0;
  return (std::uint64_t{info.me_last_pgno} + 1) * stat.ms_psize;
}

void Environment::extend() noexcept {
  const std::uint64_t used = used_bytes();
  const std::uint64_t wanted = used + std::min(used / 4, ahead_bytes_max);
  if (wanted < extended_bytes_ + extension_bytes) return;
  static constexpr std::array<char, extension_bytes> zeros{};
  mdb_filehandle_t file = -1;
  MDB_envinfo info{};
  struct stat status {};
  if (mdb_env_get_fd(env_.get(), &file) != 0 || mdb_env_info(env_.get(), &info) != 0) return;
  if (::fstat(file, &status) != 0) return;
  // Only behind its end: nothing of LMDB's is there.
  extended_bytes_ = static_cast<std::uint64_t>(status.st_size);
  for (; extended_bytes_ + zeros.size() <= std::min(wanted, info.me_mapsize); extended_bytes_ += zeros.size()) {
    const auto written = ::pwrite(file, zeros.data(), zeros.size(), static_cast<off_t>(extended_bytes_));
    if (written != static_cast<ssize_t>(zeros.size())) return;
  }
}

Environment::~Environment() {
  if (forked()) {
    // The reader slots, locks and descriptors are the parent's: closing would clear its slots.
    [[maybe_unused]] auto* const left_open = env_.release();
    claim_.forget();
    return;  // the memory of idle readers is freed, their transactions are not
  }
  held_.reset();
  // No reader is open: each keeps this alive.
  for (const Stripe& stripe : stripes_) {
    for (const auto& reader : stripe.idle) mdb_txn_abort(reader->txn_);
  }
}

bool Environment::forked() const noexcept {
  return fork_generation() != fork_generation_;
}

Result<void> Environment::start(detail::ReadState& reader) {
  if (reader.txn_ != nullptr) {
    const int code = mdb_txn_renew(reader.txn_);
    if (code == 0) return {};
    mdb_txn_abort(std::exchange(reader.txn_, nullptr));
    return fail(lmdb::error_of(code, "renew a read transaction"));
  }
  if (const int code = begin_reader(&reader.txn_); code != 0) {
    return fail(lmdb::error_of(code, "begin a read transaction"));
  }
  return {};
}

int Environment::begin_reader(MDB_txn** txn) const noexcept {
  const int code = mdb_txn_begin(env_.get(), nullptr, MDB_RDONLY, txn);
  if (code != MDB_READERS_FULL) return code;
  int swept = 0;
  mdb_reader_check(env_.get(), &swept);  // slots of processes that died
  return swept > 0 ? mdb_txn_begin(env_.get(), nullptr, MDB_RDONLY, txn) : code;
}

Result<detail::ReadStateOwner> Environment::begin_read(std::shared_ptr<Environment> environment) {
  FLOTILLA_ASSERT(environment != nullptr);
  // Before the lock: in a child it may be held for ever by a thread that only the parent has.
  if (environment->forked()) return fail(Error(Errc::forked));
  // Whoever is refused is never counted: many who try again must not keep each other out.
  unsigned count = environment->open_.load(std::memory_order_relaxed);
  do {
    if (count >= environment->readers_max_) {
      return fail(Errc::too_many_readers, fmt::format("{} read transactions are open", count));
    }
  } while (!environment->open_.compare_exchange_weak(count, count + 1, std::memory_order_acquire,
                                                     std::memory_order_relaxed));
  // Given back unless a reader takes it.
  struct Place {
    explicit Place(std::atomic<unsigned>& counter) : open(&counter) {}
    ~Place() {
      if (open != nullptr) open->fetch_sub(1, std::memory_order_relaxed);
    }
    std::atomic<unsigned>* open;
  } place(environment->open_);
  const std::size_t at = stripe_of_this_thread();
  Stripe& stripe = environment->stripes_[at];
  std::unique_ptr<detail::ReadState> reader;
  std::shared_ptr<const Catalog> before;  // may be the last to hold a large one: goes without the lock
  {
    std::unique_lock lock(stripe.mutex);
    if (stripe.idle.empty()) {
      reader = std::make_unique<detail::ReadState>();
      reader->stripe_ = at;
    } else {
      reader = std::move(stripe.idle.back());
      stripe.idle.pop_back();
    }
    for (;;) {
      if (auto started = environment->start(*reader); !started) return fail(started.error());
      if (stripe.announced == 0 || mdb_txn_id(reader->txn_) < stripe.announced) break;
      mdb_txn_reset(reader->txn_);
      stripe.published.wait(lock, [&stripe] { return stripe.announced == 0; });
    }
    reader->begun_ = just_now();
    stripe.link(reader.get());
    if (reader->catalog_ != stripe.catalog) {
      before = stripe.catalog;
      reader->catalog_.swap(before);
    }
  }
  // Of the snapshot before; here and not at its end, so that a Table that outlived it, which is forbidden, harms no
  // other.
  reader->fault_.reset();
  reader->fault_code_ = 0;
  reader->index_.reset();
  FLOTILLA_ASSERT(reader->environment_ == nullptr);
  place.open = nullptr;
  reader->environment_ = std::move(environment);
  return detail::ReadStateOwner(reader.release());
}

void Environment::end_read(std::unique_ptr<detail::ReadState> reader) noexcept {
  // With the last reader of a file that was replaced the environment goes, and all that is idle with it.
  const std::shared_ptr<Environment> environment = std::move(reader->environment_);
  FLOTILLA_ASSERT(environment != nullptr);
  reader->detach_cursors();           // before the transaction ends, as LMDB wants it
  if (environment->forked()) return;  // its slot and this lock belong to the parent
  mdb_txn_reset(reader->txn_);
  Stripe& stripe = environment->stripes_[reader->stripe_];
  {
    const std::lock_guard lock(stripe.mutex);
    stripe.unlink(reader.get());
    if (stripe.idle.size() < idle_readers_max / stripe_count) stripe.idle.push_back(std::move(reader));
  }
  if (reader != nullptr) mdb_txn_abort(reader->txn_);
  // Last: whoever takes its place finds a slot.
  [[maybe_unused]] const unsigned count = environment->open_.fetch_sub(1, std::memory_order_release);
  FLOTILLA_ASSERT(count > 0);
}

void Environment::sweep_readers() noexcept {
  int swept = 0;
  mdb_reader_check(env_.get(), &swept);  // failing to sweep is no fault: the next one may succeed
}

void Environment::Stripe::link(detail::ReadState* reader) noexcept {
  reader->older_ = newest;
  reader->newer_ = nullptr;
  (newest != nullptr ? newest->newer_ : oldest) = reader;
  newest = reader;
}

void Environment::Stripe::unlink(detail::ReadState* reader) noexcept {
  (reader->older_ != nullptr ? reader->older_->newer_ : oldest) = reader->newer_;
  (reader->newer_ != nullptr ? reader->newer_->older_ : newest) = reader->older_;
}

unsigned Environment::readers() const {
  return open_.load(std::memory_order_relaxed);
}

std::chrono::milliseconds Environment::oldest_reader_age() const {
  auto oldest = std::chrono::steady_clock::now();
  const auto now = oldest;
  for (const Stripe& stripe : stripes_) {
    const std::lock_guard lock(stripe.mutex);
    if (stripe.oldest != nullptr) oldest = std::min(oldest, stripe.oldest->begun_);
  }
  return std::chrono::duration_cast<std::chrono::milliseconds>(now - oldest);
}

std::uint64_t Environment::bytes_freed_since(std::size_t first, Counted& counted) const {
  if (counted.first != first) counted = {.first = first, .next = first};
  const auto reader = pin();
  if (!reader) return 0;
  const auto freed = freed_since(reader->txn_, counted.next);
  counted.pages += freed.pages;
  counted.next = freed.next;
  return counted.pages * freed.page_bytes;
}

std::uint64_t Environment::pinned_bytes() const {
  const std::lock_guard counting(counting_mutex_);
  std::optional<std::size_t> oldest;
  for (const Stripe& stripe : stripes_) {
    const std::lock_guard lock(stripe.mutex);
    if (stripe.oldest == nullptr) continue;
    const std::size_t txn_id = mdb_txn_id(stripe.oldest->txn_);
    oldest = std::min(oldest.value_or(txn_id), txn_id);
  }
  return oldest ? bytes_freed_since(*oldest, pinned_counted_) : 0;
}

std::uint64_t Environment::held_bytes() const {
  const std::lock_guard counting(counting_mutex_);
  std::size_t held = 0;
  {
    const std::lock_guard lock(held_mutex_);
    if (!held_) return 0;
    held = held_->txn_id();
  }
  return bytes_freed_since(held + 1, held_counted_);
}

std::uint64_t Environment::live_bytes() const {
  const std::uint64_t used = used_bytes();
  const auto reader = pin();
  if (!reader) return used;
  const auto freed = freed_since(reader->txn_, 0);
  return used - std::min(used, freed.pages * freed.page_bytes);
}

void Environment::announce(std::size_t txn_id) {
  FLOTILLA_ASSERT(txn_id > 0);
  for (Stripe& stripe : stripes_) {
    const std::lock_guard lock(stripe.mutex);
    FLOTILLA_ASSERT(stripe.announced == 0);
    stripe.announced = txn_id;
  }
}

void Environment::publish(std::shared_ptr<const Catalog> catalog) {
  FLOTILLA_ASSERT(catalog != nullptr);
  std::shared_ptr<const Catalog> before;  // goes without a lock
  for (Stripe& stripe : stripes_) {
    {
      const std::lock_guard lock(stripe.mutex);
      FLOTILLA_ASSERT(catalog->size() >= stripe.catalog->size());
      before = std::exchange(stripe.catalog, catalog);
      stripe.announced = 0;
    }
    stripe.published.notify_all();
  }
}

void Environment::withdraw() {
  for (Stripe& stripe : stripes_) {
    {
      const std::lock_guard lock(stripe.mutex);
      stripe.announced = 0;
    }
    stripe.published.notify_all();
  }
}

std::shared_ptr<const Catalog> Environment::catalog() const {
  const Stripe& any = stripes_.front();
  const std::lock_guard lock(any.mutex);
  return any.catalog;
}

}  // namespace flotilla::state
