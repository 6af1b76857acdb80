#include "state/lmdb.hpp"

#include <cerrno>

#include <fmt/format.h>

#include "base/assert.hpp"

namespace flotilla::state::lmdb {
namespace {

Errc errc_of(int code) noexcept {
  switch (code) {
    case MDB_MAP_FULL: return Errc::map_full;
    case MDB_READERS_FULL: return Errc::too_many_readers;
    case ENOSPC:
    case EDQUOT: return Errc::disk_full;
    case MDB_VERSION_MISMATCH: return Errc::version_unsupported;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_PAGE_FULL:
    case MDB_CURSOR_FULL: return Errc::damaged;
    default: return Errc::io_error;
  }
}

Result<MDB_txn*> begin(MDB_env* env, unsigned flags) {
  MDB_txn* txn = nullptr;
  const int code = mdb_txn_begin(env, nullptr, flags, &txn);
  if (code != 0) return fail(error_of(code, "begin a transaction"));
  return txn;
}

}  // namespace

Error error_of(int code, std::string_view doing) {
  FLOTILLA_ASSERT(code != 0);
  return {errc_of(code), fmt::format("{}: {}", doing, mdb_strerror(code))};
}

Result<Env> open_read_only(const std::filesystem::path& path, unsigned flags, MDB_dbi tables) {
  MDB_env* raw = nullptr;
  if (const int code = mdb_env_create(&raw); code != 0) return fail(error_of(code, "create an environment"));
  Env env(raw);
  int code = mdb_env_set_maxdbs(raw, tables);
  if (code == 0) code = mdb_env_open(raw, path.c_str(), flags | MDB_RDONLY | MDB_NOTLS | MDB_NORDAHEAD, 0600);
  if (code != 0) return fail(error_of(code, fmt::format("open {}", path.string())));
  return env;
}

Result<Txn> Txn::begin_write(MDB_env* env) {
  return begin(env, 0).map([](MDB_txn* txn) { return Txn(txn); });
}

Result<Txn> Txn::begin_read(MDB_env* env) {
  return begin(env, MDB_RDONLY).map([](MDB_txn* txn) { return Txn(txn); });
}

Result<void> Txn::commit() {
  FLOTILLA_ASSERT(txn_ != nullptr);
  const int code = mdb_txn_commit(std::exchange(txn_, nullptr));
  if (code != 0) return fail(error_of(code, "commit"));
  return {};
}

}  // namespace flotilla::state::lmdb
