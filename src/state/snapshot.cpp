#include "state/snapshot.hpp"

#include <fcntl.h>

#include <new>
#include <utility>

#include <fmt/format.h>

#include "state/checkpoint.hpp"
#include "state/environment.hpp"
#include "state/lmdb.hpp"
#include "state/rows.hpp"

namespace flotilla::state {
namespace {

constexpr std::size_t read_bytes = 1u << 20;

}  // namespace

SnapshotHasher::SnapshotHasher() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset(state_.get());
}

void SnapshotHasher::add(std::string_view bytes) {
  XXH3_128bits_update(state_.get(), bytes.data(), bytes.size());
}

SnapshotHash SnapshotHasher::hash() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
  return {hash.high64, hash.low64};
}

Result<SnapshotCopy> SnapshotCopy::take(const std::filesystem::path& path) {
  auto file = FileHandle::open(path, O_RDONLY);
  auto applied = read_applied(path);
  std::error_code code;
  std::filesystem::remove(path, code);
  if (!file) return fail(file.error());
  if (!applied) return fail(applied.error());
  SnapshotCopy copy(std::move(*file), std::move(*applied));
  SnapshotHasher hasher;
  for (;;) {
    const auto bytes = copy.read(copy.bytes_, read_bytes);
    if (!bytes) return fail(bytes.error());
    hasher.add(*bytes);
    copy.bytes_ += bytes->size();
    if (bytes->size() < read_bytes) break;
  }
  copy.hash_ = hasher.hash();
  return copy;
}

Result<SnapshotWriter> SnapshotWriter::create(const Options& options) {
  std::error_code code;
  std::filesystem::remove_all(options.directory, code);
  if (code) return fail(lmdb::error_of(code.value(), fmt::format("clear {}", options.directory.string())));
  auto writer = make(options);
  if (!writer) std::filesystem::remove_all(options.directory, code);
  return writer;
}

Result<SnapshotWriter> SnapshotWriter::make(const Options& options) {
  std::error_code code;
  if (auto room = check_room(options.directory.parent_path(), options.bytes, options.reserve_bytes); !room) {
    return fail(room.error());
  }
  std::filesystem::create_directory(options.directory, code);
  if (!code) std::filesystem::permissions(options.directory, std::filesystem::perms::owner_all, code);
  if (code) return fail(lmdb::error_of(code.value(), fmt::format("make {}", options.directory.string())));
  auto file = FileHandle::open(options.directory / "data.mdb", O_RDWR | O_CREAT | O_EXCL);
  if (!file) return fail(file.error());
  if (auto reserved = file->reserve(options.bytes); !reserved) return fail(reserved.error());
  return SnapshotWriter(options, std::move(*file));
}

Result<void> SnapshotWriter::write(std::string_view bytes) {
  if (bytes.size() > options_.bytes - written_) return fail(Errc::damaged, "the snapshot is longer than announced");
  if (auto done = file_.write_at(written_, bytes); !done) return done;
  hasher_.add(bytes);
  written_ += bytes.size();
  return {};
}

Result<Applied> SnapshotWriter::finish() {
  if (written_ != options_.bytes) return fail(Errc::damaged, "the snapshot is shorter than announced");
  if (hasher_.hash() != options_.hash) return fail(Errc::damaged, "the snapshot's bytes are not those that were sent");
  if (options_.sync) {
    if (auto synced = file_.sync(); !synced) return fail(synced.error());
  }
  if (auto sound = check_data_file(file_); !sound) return fail(sound.error());
  auto applied = read_applied(options_.directory / "data.mdb");
  if (!applied) return fail(applied.error());
  if (!applied->index || !applied->term || applied->configuration_index > applied->index ||
      !raft::valid(applied->configuration)) {
    return fail(Errc::damaged, "the snapshot is of no cluster");
  }
  auto meta = read_meta_page(file_);
  if (!meta) return fail(meta.error());
  const Checkpoint checkpoint{applied->index, applied->term, true, std::move(*meta)};
  if (auto written = write_checkpoint(options_.directory, checkpoint, options_.sync); !written) {
    return fail(written.error());
  }
  return applied;
}

Result<Applied> read_applied(const std::filesystem::path& data_file) {
  // Nobody else has it open, and a lock file beside it would be another database's.
  const auto env = lmdb::open_read_only(data_file, MDB_NOSUBDIR | MDB_NOLOCK, 1);
  if (!env) return fail(env.error());
  auto txn = lmdb::Txn::begin_read(env->get());
  if (!txn) return fail(txn.error());
  MDB_dbi dbi = 0;
  const int code = mdb_dbi_open(txn->get(), reserved_table, 0, &dbi);
  if (code != 0) return fail(lmdb::error_of(code, fmt::format("open the reserved table of {}", data_file.string())));
  return read_applied(Rows(txn->get(), dbi));
}

}  // namespace flotilla::state
