// LMDB as an application without us would have it: one table, opened with the flags of ours, nothing synced. And the
// keys and values that both get.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <lmdb.h>

namespace flotilla::bench {

constexpr std::uint64_t keys = 100'000;
constexpr std::size_t map_size = std::size_t{1} << 30;

struct Put {
  std::string key = std::string(16, 'k');
  std::string value = std::string(100, 'v');
};

/// A key of 100,000, and a value that changes.
class Puts {
 public:
  Put next() {
    const std::uint64_t number = next_key() * 0x9e3779b97f4a7c15ull;
    Put put;
    put.key.replace(0, sizeof number, reinterpret_cast<const char*>(&number), sizeof number);
    const std::uint64_t change = random_();
    put.value.replace(0, sizeof change, reinterpret_cast<const char*>(&change), sizeof change);
    return put;
  }

 private:
  /// Each once, and then any.
  std::uint64_t next_key() { return made_ < keys ? made_++ : random_() % keys; }
  std::uint64_t made_ = 0;
  std::mt19937_64 random_{1};
};

inline void check(int code) {
  if (code != 0) throw std::runtime_error(mdb_strerror(code));
}

class LmdbTable {
 public:
  explicit LmdbTable(const std::filesystem::path& directory) {
    std::filesystem::create_directories(directory);
    check(mdb_env_create(&env_));
    check(mdb_env_set_mapsize(env_, map_size));
    check(mdb_env_set_maxdbs(env_, 1001));
    check(mdb_env_open(env_, directory.c_str(), MDB_NOTLS | MDB_NORDAHEAD | MDB_NOSYNC, 0600));
    MDB_txn* txn = nullptr;
    check(mdb_txn_begin(env_, nullptr, 0, &txn));
    check(mdb_dbi_open(txn, "t", MDB_CREATE, &dbi_));
    check(mdb_txn_commit(txn));
  }
  ~LmdbTable() {
    mdb_txn_abort(reader_);
    mdb_env_close(env_);
  }
  LmdbTable(const LmdbTable&) = delete;
  LmdbTable& operator=(const LmdbTable&) = delete;

  /// In one transaction.
  void put(std::span<const bench::Put> puts) {
    MDB_txn* txn = nullptr;
    check(mdb_txn_begin(env_, nullptr, 0, &txn));
    for (const bench::Put& one : puts) {
      MDB_val key{one.key.size(), const_cast<char*>(one.key.data())};
      MDB_val value{one.value.size(), const_cast<char*>(one.value.data())};
      check(mdb_put(txn, dbi_, &key, &value, 0));
    }
    check(mdb_txn_commit(txn));
  }
  /// One read transaction, used again and again.
  void begin_read() {
    check(reader_ == nullptr ? mdb_txn_begin(env_, nullptr, MDB_RDONLY, &reader_) : mdb_txn_renew(reader_));
  }
  void end_read() { mdb_txn_reset(reader_); }
  std::string_view get(std::string_view key) {
    MDB_val wanted{key.size(), const_cast<char*>(key.data())};
    MDB_val value{};
    check(mdb_get(reader_, dbi_, &wanted, &value));
    return {static_cast<const char*>(value.mv_data), value.mv_size};
  }

 private:
  MDB_env* env_ = nullptr;
  MDB_dbi dbi_ = 0;
  MDB_txn* reader_ = nullptr;
};

}  // namespace flotilla::bench
