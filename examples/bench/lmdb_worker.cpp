// LMDB alone, as its own documentation has it: each operation a transaction, which is durable when it ends.
//
//   lmdb_worker --data DIR [--batch N]
//
// --batch N: not durable (MDB_NOSYNC), N puts a transaction, by one thread: the most that anything on top of LMDB can
// apply. An operation is then one of the N.
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include <lmdb.h>

#include <fmt/format.h>

#include "workload.hpp"

namespace {

using namespace flotilla::bench;

MDB_val to_value(std::string_view bytes) {
  return {bytes.size(), const_cast<char*>(bytes.data())};
}

class LmdbTarget final : public Target {
 public:
  LmdbTarget(const std::filesystem::path& directory, unsigned batch) : batch_(batch) {
    std::filesystem::create_directories(directory);
    mdb_env_create(&env_);
    mdb_env_set_mapsize(env_, std::size_t{64} << 30);
    mdb_env_set_maxreaders(env_, 1024);
    const unsigned flags = MDB_NOTLS | MDB_NORDAHEAD | (batch_ > 0 ? MDB_NOSYNC : 0);
    failed_ = mdb_env_open(env_, directory.c_str(), flags, 0600) != 0;
    MDB_txn* txn = nullptr;
    if (failed_ || mdb_txn_begin(env_, nullptr, 0, &txn) != 0) return;
    mdb_dbi_open(txn, nullptr, 0, &table_);
    failed_ = mdb_txn_commit(txn) != 0;
  }
  ~LmdbTarget() override {
    end_batch();
    mdb_env_close(env_);
  }

  bool failed() const { return failed_; }
  bool offers(Kind kind) const override { return batch_ == 0 || kind == Kind::put; }
  bool blocking(Kind) const override { return true; }
  void callers(unsigned) override { end_batch(); }

  void start(const Operation& operation, Done done) override {
    switch (operation.kind) {
      case Kind::put:
      case Kind::put_ten:
        if (batch_ > 0) return done(put_into_batch(operation));
        return done(write([&](MDB_txn* txn) { return put(txn, operation); }));
      case Kind::cas: return done(write([&](MDB_txn* txn) { return compare_and_swap(txn, operation); }));
      case Kind::get:
      case Kind::get_local: return done(get(operation));
      case Kind::scan: return done(scan(operation));
    }
  }

 private:
  bool put(MDB_txn* txn, const Operation& operation) {
    for (const std::string& bytes : operation.keys) {
      MDB_val key = to_value(bytes);
      MDB_val value = to_value(operation.value);
      if (mdb_put(txn, table_, &key, &value, 0) != 0) return false;
    }
    return true;
  }

  bool compare_and_swap(MDB_txn* txn, const Operation& operation) {
    MDB_val key = to_value(operation.keys[0]);
    MDB_val value{};
    if (mdb_get(txn, table_, &key, &value) != 0) return false;
    if (std::string_view(static_cast<const char*>(value.mv_data), value.mv_size) != operation.expected) return false;
    return put(txn, operation);
  }

  template <class Work>
  bool write(Work work) {
    MDB_txn* txn = nullptr;
    if (mdb_txn_begin(env_, nullptr, 0, &txn) != 0) return false;
    if (work(txn)) return mdb_txn_commit(txn) == 0;
    mdb_txn_abort(txn);
    return false;
  }

  bool put_into_batch(const Operation& operation) {
    if (txn_ == nullptr && mdb_txn_begin(env_, nullptr, 0, &txn_) != 0) return false;
    return put(txn_, operation) && (++in_batch_ < batch_ || end_batch());
  }
  bool end_batch() {
    in_batch_ = 0;
    MDB_txn* txn = txn_;
    txn_ = nullptr;
    return txn == nullptr || mdb_txn_commit(txn) == 0;
  }

  bool get(const Operation& operation) {
    MDB_txn* txn = nullptr;
    if (mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn) != 0) return false;
    MDB_val key = to_value(operation.keys[0]);
    MDB_val value{};
    const bool found = mdb_get(txn, table_, &key, &value) == 0;
    mdb_txn_abort(txn);
    return found;
  }

  bool scan(const Operation& operation) {
    MDB_txn* txn = nullptr;
    if (mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn) != 0) return false;
    MDB_cursor* cursor = nullptr;
    mdb_cursor_open(txn, table_, &cursor);
    MDB_val key = to_value(operation.keys[0]);
    MDB_val value{};
    std::size_t bytes = 0;
    std::size_t count = 0;
    for (int code = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE); code == 0 && count < scan_length; ++count) {
      bytes += key.mv_size + value.mv_size;
      code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    return bytes > 0;
  }

  const unsigned batch_;
  MDB_env* env_ = nullptr;
  MDB_dbi table_ = 0;
  bool failed_ = false;
  MDB_txn* txn_ = nullptr;
  unsigned in_batch_ = 0;
};

}  // namespace

int main(int count, char** words) {
  std::filesystem::path directory;
  unsigned batch = 0;
  for (int at = 1; at + 1 < count; at += 2) {
    if (std::string_view(words[at]) == "--data") directory = words[at + 1];
    if (std::string_view(words[at]) == "--batch")
      batch = static_cast<unsigned>(std::strtoul(words[at + 1], nullptr, 10));
  }
  if (directory.empty()) {
    fmt::print(stderr, "usage: lmdb_worker --data DIR [--batch N]\n");
    return 2;
  }
  LmdbTarget target(directory, batch);
  if (target.failed()) {
    fmt::print(stderr, "lmdb_worker: {} cannot be opened\n", directory.string());
    return 1;
  }
  return serve(target);
}
