// LMDB alone, as its own documentation has it: each operation a transaction, which is durable when it ends.
//
//   lmdb_worker --data DIR [--flat true]
//
// --flat: puts alone, not durable (MDB_NOSYNC). One thread takes all that wait into one transaction, so as many as
// there are callers: the most that anything on top of LMDB can apply in such batches.
#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <lmdb.h>

#include <fmt/format.h>

#include "workload.hpp"

namespace {

using namespace flotilla::bench;

MDB_val to_value(std::string_view bytes) {
  return {bytes.size(), const_cast<char*>(bytes.data())};
}

class Database {
 public:
  /// With the flags of ours, or but for MDB_NOSYNC.
  Database(const std::filesystem::path& directory, bool durable) : durable_(durable) {
    std::filesystem::create_directories(directory);
    mdb_env_create(&env_);
    mdb_env_set_mapsize(env_, std::size_t{256} << 30);
    mdb_env_set_maxreaders(env_, 1024);
    const unsigned flags = MDB_NOTLS | MDB_NORDAHEAD | (durable ? 0 : MDB_NOSYNC);
    failed_ = mdb_env_open(env_, directory.c_str(), flags, 0600) != 0;
    failed_ = failed_ || !write([this](MDB_txn* txn) { return mdb_dbi_open(txn, nullptr, 0, &table_) == 0; });
  }
  ~Database() { mdb_env_close(env_); }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  bool failed() const { return failed_; }
  MDB_env* env() const { return env_; }
  MDB_dbi table() const { return table_; }

  bool put(MDB_txn* txn, const Operation& operation) const {
    for (const std::string& key : operation.keys) {
      if (!put(txn, key, operation.value)) return false;
    }
    return true;
  }

  template <class Work>
  bool write(Work work) const {
    MDB_txn* txn = nullptr;
    if (mdb_txn_begin(env_, nullptr, 0, &txn) != 0) return false;
    if (work(txn)) return mdb_txn_commit(txn) == 0;
    mdb_txn_abort(txn);
    return false;
  }

  /// Durable as a whole, however it is open.
  bool fill(std::uint64_t keys, std::string_view value) const {
    const std::uint64_t at_once = 100 * keys_to_fill(value.size());
    mdb_env_set_flags(env_, MDB_NOSYNC, 1);
    bool ok = true;
    std::string key;
    for (std::uint64_t next = 0; ok && next < keys;) {
      ok = write([&](MDB_txn* txn) {
        for (const std::uint64_t end = std::min(keys, next + at_once); next < end; ++next) {
          set_key(key, next);
          if (!put(txn, key, value)) return false;
        }
        return true;
      });
    }
    if (durable_) mdb_env_set_flags(env_, MDB_NOSYNC, 0);
    return ok && mdb_env_sync(env_, 1) == 0;
  }

 private:
  bool put(MDB_txn* txn, std::string_view key_bytes, std::string_view value_bytes) const {
    MDB_val key = to_value(key_bytes);
    MDB_val value = to_value(value_bytes);
    return mdb_put(txn, table_, &key, &value, 0) == 0;
  }

  const bool durable_;
  MDB_env* env_ = nullptr;
  MDB_dbi table_ = 0;
  bool failed_ = false;
};

class DurableTarget final : public Target {
 public:
  explicit DurableTarget(const Database& db) : db_(db) {}
  ~DurableTarget() override {
    for (MDB_txn* reader : readers_) mdb_txn_abort(reader);
  }

  bool offers(Kind) const override { return true; }
  bool blocking(Kind) const override { return true; }
  bool fill(std::uint64_t keys, std::string_view value) override { return db_.fill(keys, value); }

  /// A reader each, which is renewed for each operation.
  void callers(unsigned count) override {
    while (readers_.size() < count) {
      MDB_txn* reader = nullptr;
      if (mdb_txn_begin(db_.env(), nullptr, MDB_RDONLY, &reader) != 0) return;
      mdb_txn_reset(reader);
      readers_.push_back(reader);
    }
  }

  void start(Operation& operation) override {
    switch (operation.kind) {
      case Kind::put:
      case Kind::put_ten: return operation.end(db_.write([&](MDB_txn* txn) { return db_.put(txn, operation); }));
      case Kind::cas: return operation.end(db_.write([&](MDB_txn* txn) { return compare_and_swap(txn, operation); }));
      case Kind::get:
      case Kind::get_local: return operation.end(get(operation));
      case Kind::scan: return operation.end(scan(operation));
    }
  }

 private:
  bool compare_and_swap(MDB_txn* txn, const Operation& operation) const {
    MDB_val key = to_value(operation.keys[0]);
    MDB_val value{};
    if (mdb_get(txn, db_.table(), &key, &value) != 0) return false;
    if (std::string_view(static_cast<const char*>(value.mv_data), value.mv_size) != operation.expected) return false;
    return db_.put(txn, operation);
  }

  bool get(const Operation& operation) {
    MDB_txn* txn = readers_.at(operation.caller);
    if (mdb_txn_renew(txn) != 0) return false;
    MDB_val key = to_value(operation.keys[0]);
    MDB_val value{};
    const bool found = mdb_get(txn, db_.table(), &key, &value) == 0;
    mdb_txn_reset(txn);
    return found;
  }

  bool scan(const Operation& operation) {
    MDB_txn* txn = readers_.at(operation.caller);
    if (mdb_txn_renew(txn) != 0) return false;
    MDB_cursor* cursor = nullptr;
    mdb_cursor_open(txn, db_.table(), &cursor);
    MDB_val key = to_value(operation.keys[0]);
    MDB_val value{};
    std::size_t bytes = 0;
    std::size_t count = 0;
    for (int code = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE); code == 0 && count < scan_length; ++count) {
      bytes += key.mv_size + value.mv_size;
      code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    mdb_txn_reset(txn);
    return bytes > 0;
  }

  const Database& db_;
  std::vector<MDB_txn*> readers_;
};

class FlatTarget final : public Target {
 public:
  explicit FlatTarget(const Database& db) : db_(db), thread_([this] { apply(); }) {}
  ~FlatTarget() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wanted_.notify_one();
    thread_.join();
  }

  bool offers(Kind kind) const override { return kind == Kind::put || kind == Kind::put_ten; }
  bool blocking(Kind) const override { return false; }
  bool fill(std::uint64_t keys, std::string_view value) override { return db_.fill(keys, value); }

  void start(Operation& operation) override {
    if (std::this_thread::get_id() == thread_.get_id()) {
      batch_.push_back(&operation);
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      begun_.push_back(&operation);
    }
    wanted_.notify_one();
  }

 private:
  void apply() {
    std::vector<Operation*> now;
    while (take()) {
      now.swap(batch_);
      const bool ok = db_.write([&](MDB_txn* txn) {
        for (const Operation* operation : now) {
          if (!db_.put(txn, *operation)) return false;
        }
        return true;
      });
      for (Operation* operation : now) operation->end(ok);
      now.clear();
    }
  }

  bool take() {
    std::unique_lock lock(mutex_);
    wanted_.wait(lock, [this] { return stopping_ || !batch_.empty() || !begun_.empty(); });
    batch_.insert(batch_.end(), begun_.begin(), begun_.end());
    begun_.clear();
    return !batch_.empty();
  }

  const Database& db_;
  std::vector<Operation*> batch_;  ///< the thread's own
  std::mutex mutex_;
  std::condition_variable wanted_;
  std::vector<Operation*> begun_;  ///< elsewhere: the first of each caller
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace

int main(int count, char** words) {
  std::filesystem::path directory;
  bool flat = false;
  for (int at = 1; at + 1 < count; at += 2) {
    if (std::string_view(words[at]) == "--data") directory = words[at + 1];
    if (std::string_view(words[at]) == "--flat") flat = std::string_view(words[at + 1]) == "true";
  }
  if (directory.empty()) {
    fmt::print(stderr, "usage: lmdb_worker --data DIR [--flat true]\n");
    return 2;
  }
  const Database db(directory, !flat);
  if (db.failed()) {
    fmt::print(stderr, "lmdb_worker: {} cannot be opened\n", directory.string());
    return 1;
  }
  std::unique_ptr<Target> target;
  if (flat) {
    target = std::make_unique<FlatTarget>(db);
  } else {
    target = std::make_unique<DurableTarget>(db);
  }
  return serve(*target);
}
