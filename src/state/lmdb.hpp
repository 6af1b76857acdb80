// A thin layer over liblmdb: errors as values, owners for environments and write transactions. The only header that
// includes lmdb.h.
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>
#include <utility>

#include <lmdb.h>

#include "flotilla/error.hpp"

namespace flotilla::state::lmdb {

/// What an LMDB or system error number means to us; the message is "<doing>: <reason>". Requires: code != 0.
Error error_of(int code, std::string_view doing);

inline MDB_val to_val(std::string_view bytes) noexcept {
  return {bytes.size(), const_cast<char*>(bytes.data())};
}
inline std::string_view to_view(const MDB_val& value) noexcept {
  return {static_cast<const char*>(value.mv_data), value.mv_size};
}

struct CloseEnv {
  void operator()(MDB_env* env) const noexcept { mdb_env_close(env); }
};
using Env = std::unique_ptr<MDB_env, CloseEnv>;

/// A database to read alone, of at most `tables` named ones. `flags` besides MDB_RDONLY: MDB_NOSUBDIR, MDB_NOLOCK.
[[nodiscard]] Result<Env> open_read_only(const std::filesystem::path& path, unsigned flags, MDB_dbi tables);

struct CloseCursor {
  void operator()(MDB_cursor* cursor) const noexcept { mdb_cursor_close(cursor); }
};
using CursorOwner = std::unique_ptr<MDB_cursor, CloseCursor>;

/// A transaction that is aborted unless it is committed. LMDB frees it in a commit that fails, too.
class Txn {
 public:
  static Result<Txn> begin_write(MDB_env* env);
  static Result<Txn> begin_read(MDB_env* env);
  Txn(Txn&& other) noexcept : txn_(std::exchange(other.txn_, nullptr)) {}
  Txn& operator=(Txn&& other) noexcept {
    std::swap(txn_, other.txn_);
    return *this;
  }
  ~Txn() { abort(); }

  MDB_txn* get() const noexcept { return txn_; }
  std::size_t id() const noexcept { return mdb_txn_id(txn_); }
  [[nodiscard]] Result<void> commit();
  void abort() noexcept {
    if (txn_ != nullptr) mdb_txn_abort(std::exchange(txn_, nullptr));
  }

 private:
  explicit Txn(MDB_txn* txn) : txn_(txn) {}
  MDB_txn* txn_;
};

}  // namespace flotilla::state::lmdb
