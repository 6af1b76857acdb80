#include "node/start.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "base/log_sink.hpp"
#include "log/recovery.hpp"

namespace flotilla::node {
namespace {

constexpr std::size_t read_bytes = 16u << 20;

std::uint64_t mix(std::uint64_t& state) {  // SplitMix64
  std::uint64_t value = state += 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return (value ^ (value >> 31)) | 1;  // never 0
}

Result<std::unique_ptr<log::Log>> open_log(const Surroundings& surroundings, const Options& options) {
  return log::Log::open(surroundings.files, {.directory = log_path(options.data_dir),
                                             .segment_bytes = options.segment_bytes,
                                             .prepare_ahead = surroundings.prepare_ahead,
                                             .sync_each_group = options.durability == Durability::every_commit});
}

Result<std::unique_ptr<state::Store>> open_store(const Surroundings& surroundings, const Options& options,
                                                 const state::Directory& directory, const Commands& commands) {
  return state::Store::open({.directory = directory.path(),
                             .map_size = options.map_size,
                             .readers_max = options.readers_max,
                             .sync = surroundings.sync_state,
                             .log_sink = options.log_sink},
                            commands);
}

Result<void> remove_files(log::FileSystem& files, const std::string& directory) {
  const auto names = files.list(directory);
  if (!names) return fail(names.error());
  // Newest first, so that what an interruption leaves is a log's beginning.
  for (auto name = names->rbegin(); name != names->rend(); ++name) {
    if (auto removed = files.remove(directory + "/" + *name); !removed) return removed;
    if (auto synced = files.sync_directory(directory); !synced) return synced;
  }
  return {};
}

tl::unexpected<Error> without_identity(const std::filesystem::path& data_dir, std::string_view part) {
  return fail(
      Errc::damaged,
      fmt::format("{} has {} but no file `node` that says whose it is; nothing was changed. Restore the file, or "
                  "move the directory away and join the cluster anew",
                  data_dir.string(), part));
}

/// A directory without data/node may hold what an interrupted first start left: at most the first configuration in the
/// log, and a database that was only made.
Result<void> clear_unfinished(const Surroundings& surroundings, const Options& options) {
  log::FileSystem& files = surroundings.files;
  if (auto checked = check_unfinished(files, options.data_dir); !checked) return checked;
  const auto exists = files.exists(log_path(options.data_dir));
  if (!exists) return fail(exists.error());
  if (*exists) {
    if (auto removed = remove_files(files, log_path(options.data_dir)); !removed) return removed;
  }
  return state::Directory::remove(options.data_dir);
}

Result<void> bootstrap(log::Log& log, NodeId id) {
  raft::Configuration configuration;
  configuration.members.push_back({id, Address(), true});  // the address follows once it is known where we listen
  raft::Entry entry{.term = Term{1},
                    .index = Index{1},
                    .type = raft::EntryType::configuration,
                    .payload = SharedBytes(raft::encode(configuration))};
  raft::seal(entry);
  const log::Log::Write write{raft::HardState{Term{1}, id}, {&entry, 1}, Index{1}};
  return log.append({&write, 1});
}

Result<Started> start_new(const Surroundings& surroundings, const Options& options, const Commands& commands,
                          DirectoryLock lock) {
  log::FileSystem& files = surroundings.files;
  std::uint64_t random = surroundings.random;
  const bool founds = options.found || options.listen.empty();
  if (!founds && options.join.empty()) {
    return fail(Errc::not_founded,
                fmt::format("{} holds no member yet: set Options::found on the first member of a new "
                            "cluster, or Options::join to enter one",
                            options.data_dir.string()));
  }
  if (auto cleared = clear_unfinished(surroundings, options); !cleared) return fail(cleared.error());
  Started started{.lock = std::move(lock), .identity = {}, .log = {}, .directory = {}, .store = {}, .restored = {}};
  started.identity.node_id = NodeId{mix(random)};
  started.identity.incarnation = 1;
  if (founds) started.identity.cluster_id = ClusterId{mix(random), mix(random)};
  auto log = open_log(surroundings, options);
  if (!log) return fail(log.error());
  started.log = std::move(*log);
  if (founds) {
    if (auto done = bootstrap(*started.log, started.identity.node_id); !done) return fail(done.error());
    started.log.reset();
    log = open_log(surroundings, options);  // what recovery finds is what every later start goes by
    if (!log) return fail(log.error());
    started.log = std::move(*log);
  }
  auto directory = state::Directory::create(options.data_dir, surroundings.sync_state);
  if (!directory) return fail(directory.error());
  started.directory = std::make_unique<state::Directory>(std::move(*directory));
  auto store = open_store(surroundings, options, *started.directory, commands);
  if (!store) return fail(store.error());
  started.store = std::move(*store);
  if (auto synced = files.sync_directory(options.data_dir.string()); !synced) return fail(synced.error());
  if (auto written = log::write_identity(files, identity_path(options.data_dir), started.identity); !written) {
    return fail(written.error());
  }
  return started;
}

TermAt terms_of(log::Log& log) {
  return [&log](Index index) { return log.term_at(index); };
}

/// A snapshot was installed and the log was not begun anew after it any more: now it is.
Result<void> follow_snapshot(const Surroundings& surroundings, const Options& options, Started& started) {
  const state::Applied& applied = started.store->applied();
  if (!started.store->last_checkpoint().installed) return {};
  const auto& recovered = started.log->recovered();
  const auto anew = must_begin_anew(applied, recovered, terms_of(*started.log));
  if (!anew) return fail(anew.error());
  if (!*anew) return {};
  if (recovered.hard_state.term < applied.term) {
    // What the snapshot includes was written by a leader of that term; none was voted for here.
    const log::Log::Write write{raft::HardState{applied.term, NodeId{}}, {}, Index{}};
    if (auto written = started.log->append({&write, 1}); !written) return written;
  }
  if (auto begun = started.log->begin_anew(applied.index, applied.term); !begun) return begun;
  started.log.reset();
  auto log = open_log(surroundings, options);  // what recovery finds is what every later start goes by
  if (!log) return fail(log.error());
  started.log = std::move(*log);
  return {};
}

Result<Started> start_again(const Surroundings& surroundings, const Options& options, const Commands& commands,
                            DirectoryLock lock, log::Identity identity) {
  log::FileSystem& files = surroundings.files;
  if (auto parts = check_parts(files, options.data_dir); !parts) return fail(parts.error());
  Started started{
      .lock = std::move(lock), .identity = identity, .log = {}, .directory = {}, .store = {}, .restored = {}};
  auto log = open_log(surroundings, options);
  if (!log) return fail(log.error());
  started.log = std::move(*log);
  if (auto held = check_not_emptied(started.log->recovered(), options.data_dir); !held) return fail(held.error());
  auto directory = state::Directory::open(options.data_dir, surroundings.sync_state);
  if (!directory) return fail(directory.error());
  started.directory = std::make_unique<state::Directory>(std::move(*directory));
  auto store = open_store(surroundings, options, *started.directory, commands);
  if (!store) return fail(store.error());
  started.store = std::move(*store);

  if (auto followed = follow_snapshot(surroundings, options, started); !followed) return fail(followed.error());
  ++started.identity.incarnation;
  if (auto written = log::write_identity(files, identity_path(options.data_dir), started.identity); !written) {
    return fail(written.error());
  }
  return started;
}

constexpr std::uint64_t long_replay = 100'000;

/// Applies what is committed again, from the checkpoint on: nobody who reads here goes back in time.
Result<void> replay(const Options& options, state::Store& store, log::Log& log, Index last) {
  const Index first = store.applied().index.next();
  if (last < first) return {};
  const std::uint64_t count = last - first + 1;
  if (count >= long_replay) log_line(options.log_sink, LogLevel::info, "replaying {} entries of the log", count);
  for (Index next = first; next <= last;) {
    auto entries = log.read(next, read_bytes);
    if (!entries) return fail(entries.error());
    if (entries->empty()) return fail(Errc::damaged, fmt::format("the log lacks its entry {}", next.value));
    while (entries->back().index > last) entries->pop_back();
    next = entries->back().index.next();
    for (std::span<const raft::Entry> rest(*entries); !rest.empty();) {
      const auto batch = rest.first(std::min(rest.size(), options.batch_entries_max));
      if (auto applied = store.apply(batch); !applied) return fail(applied.error());
      // A first part, if the disk is full: then the next try says so.
      rest = rest.subspan(store.applied().index - rest.front().index + 1);
    }
    if (count >= long_replay) {
      log_line(options.log_sink, LogLevel::info, "replayed {} of {}", next - first, count);
    }
  }
  return {};
}

Result<raft::Restored> restore(const state::Applied& applied, log::Log& log) {
  const auto& recovered = log.recovered();
  raft::Restored restored{
      .hard_state = recovered.hard_state,
      .base_index = applied.index,
      .base_term = applied.term,
      .configuration = applied.configuration,
      .configuration_index = applied.configuration_index,
      .entries = {},
      .commit_index = std::max(applied.index, std::min(recovered.commit_index, recovered.last_index)),
      .applied_index = applied.index,
      .first_index = recovered.first_index,
      .time = applied.time};
  for (Index next = applied.index.next(); next <= recovered.last_index;) {
    auto entries = log.read(next, read_bytes);
    if (!entries) return fail(entries.error());
    if (entries->empty()) return fail(Errc::damaged, fmt::format("the log lacks its entry {}", next.value));
    next = entries->back().index.next();
    restored.entries.insert(restored.entries.end(), std::make_move_iterator(entries->begin()),
                            std::make_move_iterator(entries->end()));
  }
  return restored;
}

/// Makes the directory and what is missing above it, each durable in its parent: a power loss must not take away a
/// directory that held acknowledged commands. The lowest that is there may be of a start that was killed before it was
/// durable; not if this user cannot write where it stands.
Result<void> make_durably(log::FileSystem& files, const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> missing;
  std::error_code code;
  auto lowest = directory;
  for (; !lowest.empty() && !std::filesystem::exists(lowest, code); lowest = lowest.parent_path()) {
    missing.push_back(lowest);
  }
  if (const auto parent = lowest.parent_path(); parent != lowest && ::access(parent.c_str(), W_OK) == 0) {
    if (auto synced = files.sync_directory(parent.string()); !synced) return synced;
  }
  for (auto path = missing.rbegin(); path != missing.rend(); ++path) {
    std::filesystem::create_directory(*path, code);
    if (code) return fail(Errc::io_error, fmt::format("cannot make {}: {}", path->string(), code.message()));
    std::filesystem::permissions(*path, std::filesystem::perms::owner_all, code);
    if (auto made = files.make_directory(path->string()); !made) return made;
    if (auto synced = files.sync_directory(path->parent_path().string()); !synced) return synced;
  }
  return files.make_directory(directory.string());
}

}  // namespace

std::string identity_path(const std::filesystem::path& data_dir) {
  return data_dir / "node";
}

std::string log_path(const std::filesystem::path& data_dir) {
  return data_dir / "log";
}

std::string state_path(const std::filesystem::path& data_dir) {
  return data_dir / "state";
}

Result<void> check_unfinished(log::FileSystem& files, const std::filesystem::path& data_dir) {
  const auto unused = state::Store::unused(state_path(data_dir));
  if (!unused) return fail(unused.error());
  if (!*unused) return without_identity(data_dir, "a database");
  const auto exists = files.exists(log_path(data_dir));
  if (!exists) return fail(exists.error());
  if (!*exists) return {};
  const auto chain = log::walk(files, {.directory = log_path(data_dir)});
  if (!chain) return fail(chain.error());
  if (chain->map.last_index() > Index{1}) return without_identity(data_dir, "a log");
  return {};
}

Result<void> check_parts(log::FileSystem& files, const std::filesystem::path& data_dir) {
  const auto log_exists = files.exists(log_path(data_dir));
  if (!log_exists) return fail(log_exists.error());
  const std::pair<std::string, bool> parts[] = {{log_path(data_dir), *log_exists},
                                                {state_path(data_dir), std::filesystem::exists(state_path(data_dir))}};
  for (const auto& [part, exists] : parts) {
    if (exists) continue;
    return fail(Errc::damaged, fmt::format("{} is missing; a member without it could forget what it acknowledged. Move "
                                           "the directory away and join the cluster anew, or restore a backup",
                                           part));
  }
  return {};
}

Result<void> check_not_emptied(const log::Log::Recovered& recovered, const std::filesystem::path& data_dir) {
  if (recovered.blocks > 0) return {};
  return fail(Errc::damaged,
              fmt::format("{} is empty, but a member that has an identity has written to it; a member without its log "
                          "could vote twice. Move the directory away and join the cluster anew, or restore a backup",
                          log_path(data_dir)));
}

Result<bool> must_begin_anew(const state::Applied& applied, const log::Log::Recovered& recovered,
                             const TermAt& term_at) {
  const bool begins_there = recovered.first_index == applied.index.next();
  const bool held = applied.index >= recovered.first_index && applied.index <= recovered.last_index;
  if (begins_there) return false;
  if (held) {
    const auto term = term_at(applied.index);
    if (!term) return fail(term.error());
    if (*term == applied.term) return false;
  }
  if (recovered.commit_index > applied.index) {
    return fail(Errc::damaged, fmt::format("the log says that entry {} is committed, but the installed snapshot ends "
                                           "at {} with another term than the log has there",
                                           recovered.commit_index.value, applied.index.value));
  }
  return true;
}

Result<void> check_against_log(const state::Applied& applied, const log::Log::Recovered& recovered,
                               const TermAt& term_at) {
  const auto damaged = [&](const std::string& what) {
    return fail(
        Errc::damaged,
        fmt::format("the database stands at index {} (term {}), but the log {}; move the directory away and join "
                    "the cluster anew, or restore a backup",
                    applied.index.value, applied.term.value, what));
  };
  if (applied.term > recovered.hard_state.term) {
    return damaged(fmt::format("knows only term {}", recovered.hard_state.term.value));
  }
  if (applied.index > recovered.last_index) return damaged(fmt::format("ends at {}", recovered.last_index.value));
  if (applied.index.next() < recovered.first_index) {
    return damaged(fmt::format("begins at {}", recovered.first_index.value));
  }
  if (applied.index >= recovered.first_index && applied.index) {
    const auto term = term_at(applied.index);
    if (!term) return fail(term.error());
    if (*term != applied.term) return damaged(fmt::format("has term {} there", term->value));
  }
  return {};
}

Error removed(const std::filesystem::path& data_dir) {
  return {Errc::removed, fmt::format("the member of {} was removed from its cluster; to join again, move the directory "
                                     "away",
                                     data_dir.string())};
}

namespace {

Error in_use(const std::filesystem::path& data_dir) {
  const pid_t holder = DirectoryLock::holder(data_dir);
  const bool ours = holder == ::getpid();
  return {Errc::in_use, fmt::format("{} is in use by {}; nothing was changed", data_dir.string(),
                                    ours ? "another DB of this process" : fmt::format("process {}", holder))};
}

}  // namespace

pid_t DirectoryLock::holder(const std::filesystem::path& data_dir) {
  const auto text = log::read_file(log::posix_file_system(), data_dir / "LOCK");
  pid_t pid = 0;
  if (text) std::from_chars(text->data(), text->data() + text->size(), pid);
  return pid;
}

Result<DirectoryLock> DirectoryLock::share(const std::filesystem::path& data_dir) {
  const std::string path = data_dir / "LOCK";
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    const int reason = errno;
    return fail(reason == ENOENT ? Errc::not_found : Errc::io_error,
                fmt::format("cannot open {}: {}", path, std::strerror(reason)));
  }
  DirectoryLock lock(descriptor);
  if (::flock(descriptor, LOCK_SH | LOCK_NB) != 0) return fail(in_use(data_dir));
  return lock;
}

Result<DirectoryLock> DirectoryLock::take(const std::filesystem::path& data_dir) {
  const std::string path = data_dir / "LOCK";
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) return fail(Errc::io_error, fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  DirectoryLock lock(descriptor);
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    // A member has it for itself alone; those who only look share it.
    if (::flock(descriptor, LOCK_SH | LOCK_NB) != 0) return fail(in_use(data_dir));
    return fail(Errc::in_use, fmt::format("{} is being looked at by `flotilla doctor`, which was not disturbed; try "
                                          "again when it has ended",
                                          data_dir.string()));
  }
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(descriptor, 0) != 0 || ::pwrite(descriptor, pid.data(), pid.size(), 0) < 0) {
    return fail(Errc::io_error, fmt::format("cannot write {}: {}", path, std::strerror(errno)));
  }
  return lock;
}

DirectoryLock::DirectoryLock(int descriptor) : descriptor_(descriptor), taker_(::getpid()) {}

DirectoryLock::DirectoryLock(DirectoryLock&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), taker_(other.taker_) {}

DirectoryLock& DirectoryLock::operator=(DirectoryLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(taker_, other.taker_);
  return *this;
}

DirectoryLock::~DirectoryLock() {
  if (descriptor_ < 0) return;
  // The lock belongs to the open file, which a forked child may share: only its taker lets go of it.
  if (::getpid() == taker_) ::flock(descriptor_, LOCK_UN);
  ::close(descriptor_);
}

bool alone(const Started& started) {
  raft::Configuration newest = started.restored.configuration;
  for (const raft::Entry& entry : started.restored.entries) {
    if (entry.type != raft::EntryType::configuration) continue;
    if (auto decoded = raft::decode_configuration(entry.payload.view())) newest = std::move(*decoded);
  }
  return newest.ids() == std::vector<NodeId>{started.identity.node_id};
}

Result<Started> start(const Surroundings& surroundings, const Options& options, const Commands& commands) {
  log::FileSystem& files = surroundings.files;
  std::error_code code;
  auto directory = std::filesystem::absolute(options.data_dir, code).lexically_normal();
  if (!directory.has_filename()) directory = directory.parent_path();  // "data/" names the same as "data"
  if (auto made = make_durably(files, directory); !made) return fail(made.error());
  auto lock = DirectoryLock::take(options.data_dir);
  if (!lock) return fail(lock.error());
  const auto identity = log::read_identity(files, identity_path(options.data_dir));
  if (!identity && !(identity.error() == Errc::not_found)) return fail(identity.error());
  if (identity && options.found) {
    log_line(options.log_sink, LogLevel::info, "{} already holds a member; Options::found is ignored",
             options.data_dir.string());
  }
  auto started = identity ? start_again(surroundings, options, commands, std::move(*lock), *identity)
                          : start_new(surroundings, options, commands, std::move(*lock));
  if (!started) return started;
  if (auto agree = check_against_log(started->store->applied(), started->log->recovered(), terms_of(*started->log));
      !agree) {
    return fail(agree.error());
  }
  const auto& recovered = started->log->recovered();
  Index last = std::min(recovered.commit_index, recovered.last_index);
  for (;;) {
    if (auto done = replay(options, *started->store, *started->log, last); !done) return fail(done.error());
    if (started->store->was_removed(started->identity.node_id)) return fail(removed(options.data_dir));
    auto restored = restore(started->store->applied(), *started->log);
    if (!restored) return fail(restored.error());
    started->restored = std::move(*restored);
    if (started->restored.entries.empty() || !alone(*started)) return started;
    last = recovered.last_index;  // the only voter's log is committed as it is
  }
}

}  // namespace flotilla::node
