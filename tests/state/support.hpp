// What the tests of the state machine share: a directory, entries, and a store that runs functions of the test as
// commands.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <lmdb.h>

#include "base/bytes.hpp"
#include "flotilla/txn.hpp"
#include "raft/configuration.hpp"
#include "raft/entry.hpp"
#include "state/payload.hpp"
#include "state/store.hpp"

namespace state_test {

using flotilla::Args;
using flotilla::Bytes;
using flotilla::Commands;
using flotilla::Errc;
using flotilla::Index;
using flotilla::NodeId;
using flotilla::ReadTxn;
using flotilla::Result;
using flotilla::Table;
using flotilla::TableKind;
using flotilla::Term;
using flotilla::WriteTxn;
using flotilla::raft::Entry;
using flotilla::raft::EntryType;
using flotilla::state::CallId;
using flotilla::state::Outcome;
using flotilla::state::Store;
using flotilla::state::StoreOptions;

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "flotilla-state-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = pattern;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Where random tests begin: FLOTILLA_SEED, or 1. A failure captures the seed.
inline std::uint64_t first_seed() {
  const char* const seed = std::getenv("FLOTILLA_SEED");
  return seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10);
}

inline StoreOptions options_in(const std::filesystem::path& directory) {
  StoreOptions options;
  options.directory = directory;
  options.map_size = 64u << 20;
  options.sync = false;
  options.log_sink = [](flotilla::LogLevel, std::string_view) {};
  return options;
}

inline Entry entry_of(EntryType type, std::uint64_t index, std::string payload, std::uint64_t term = 1) {
  Entry entry;
  entry.term = Term{term};
  entry.index = Index{index};
  entry.type = type;
  entry.time = 1'000'000 + index;
  entry.payload = flotilla::SharedBytes(std::move(payload));
  return entry;
}

inline Entry command_entry(std::uint64_t index, std::string_view name, std::vector<std::string_view> args,
                           CallId call = {}, std::uint64_t acknowledged_below = 0) {
  const auto payload = flotilla::state::encode_command(call, acknowledged_below, name, args);
  return entry_of(EntryType::command, index, std::string(payload.view()));
}

inline Entry session_entry(std::uint64_t index, std::uint64_t node, std::uint64_t incarnation, std::uint64_t session) {
  return entry_of(EntryType::session, index, flotilla::state::encode_session({NodeId{node}, incarnation, session}));
}

/// Commands that every test may use. Arguments: table, key, value.
inline Commands test_commands() {
  Commands commands;
  commands.add("put", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    static_cast<void>(txn.table(args[0]).put(args[1], args[2]));
    return Bytes(args[2]);
  });
  commands.add("add", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    static_cast<void>(txn.duplicates_table(args[0]).put(args[1], args[2]));
    return Bytes();
  });
  commands.add("get", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    return Bytes(txn.table(args[0]).get(args[1]).value_or("none"));
  });
  commands.add("count", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    auto table = txn.table(args[0]);
    const auto before = table.get(args[1]);
    const std::string after = std::to_string((before ? std::stoull(std::string(*before)) : 0) + 1);
    static_cast<void>(table.put(args[1], after));
    return after;
  });
  commands.add("refuse", [](WriteTxn&, const Args&) -> Result<Bytes> {
    return flotilla::fail(Errc::not_found, "refused before writing");
  });
  commands.add("write_and_refuse", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    static_cast<void>(txn.table(args[0]).put(args[1], args[2]));
    return flotilla::fail(Errc::not_found, "refused after writing");
  });
  commands.add("write_and_throw", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    static_cast<void>(txn.table(args[0]).put(args[1], args[2]));
    throw std::runtime_error("thrown after writing");
  });
  commands.add("random", [](WriteTxn& txn, const Args&) -> Result<Bytes> {
    return std::to_string(txn.random()) + " " + std::to_string(txn.random());
  });
  return commands;
}

using Body = std::function<Result<Bytes>(WriteTxn&)>;

/// A store in a directory of its own, and the end of its log.
class Rig {
 public:
  explicit Rig(Commands commands = test_commands(), std::function<void(StoreOptions&)> change = {})
      : commands_(std::move(commands)), options_(options_in(dir_.path() / "state")) {
    if (change) change(options_);
    commands_.add("body", [this](WriteTxn& txn, const Args&) { return body_(txn); });
    open();
  }

  void open() { store_ = Store::open(options_, commands_).value(); }
  /// As after an orderly end. One that stopped with a fault goes back to its last checkpoint.
  void close() {
    static_cast<void>(store_->checkpoint());
    store_.reset();
  }
  /// As after a crash: what came after the checkpoint has to be applied again.
  void crash() { store_.reset(); }
  void reopen() {
    close();
    open();
  }

  Store& store() { return *store_; }
  StoreOptions& options() { return options_; }
  std::filesystem::path data_file() const { return options_.directory / "data.mdb"; }
  std::uint64_t next_index() const { return store_->applied().index.value + 1; }
  ReadTxn read() { return store_->read().value(); }

  Result<std::vector<Outcome>> apply(std::vector<Entry> entries) { return store_->apply(entries); }
  /// Applies one command as the next entry.
  Result<Bytes> command(std::string_view name, std::vector<std::string_view> args, CallId call = {},
                        std::uint64_t acknowledged_below = 0) {
    return only(apply({command_entry(next_index(), name, std::move(args), call, acknowledged_below)}));
  }
  Result<Bytes> session(std::uint64_t node, std::uint64_t incarnation, std::uint64_t session) {
    return only(apply({session_entry(next_index(), node, incarnation, session)}));
  }
  /// Runs a function of the test as a command. It may run more than once.
  Result<Bytes> run(Body body) {
    body_ = std::move(body);
    return command("body", {});
  }
  void set_body(Body body) { body_ = std::move(body); }

  static Result<Bytes> only(Result<std::vector<Outcome>> outcomes) {
    if (!outcomes) return flotilla::fail(outcomes.error());
    return outcomes->at(0).result;
  }

 private:
  TempDir dir_;
  Commands commands_;
  StoreOptions options_;
  Body body_;
  std::unique_ptr<Store> store_;
};

/// What somebody changed in a database that nobody has open becomes its checkpoint.
inline void accept_changes(const std::filesystem::path& directory) {
  namespace state = flotilla::state;
  auto checkpoint = state::read_checkpoint(directory).value();
  const auto file = state::FileHandle::open(directory / "data.mdb", O_RDONLY).value();
  checkpoint.meta = state::read_meta_page(file).value();
  REQUIRE(state::write_checkpoint(directory, checkpoint, false));
}

/// All rows of all named databases of an environment that nobody has open: what is really on the disk.
inline std::map<std::string, std::vector<std::pair<std::string, std::string>>> dump(
    const std::filesystem::path& directory) {
  std::map<std::string, std::vector<std::pair<std::string, std::string>>> out;
  const auto check = [](int code) {
    if (code != 0) throw std::runtime_error(mdb_strerror(code));
  };
  const auto text = [](const MDB_val& value) {
    return std::string(static_cast<const char*>(value.mv_data), value.mv_size);
  };
  MDB_env* env = nullptr;
  check(mdb_env_create(&env));
  check(mdb_env_set_maxdbs(env, 1100));
  check(mdb_env_open(env, directory.c_str(), MDB_RDONLY | MDB_NOTLS, 0600));
  MDB_txn* txn = nullptr;
  check(mdb_txn_begin(env, nullptr, MDB_RDONLY, &txn));
  const auto each = [&](MDB_dbi dbi, auto visit) {
    MDB_cursor* cursor = nullptr;
    check(mdb_cursor_open(txn, dbi, &cursor));
    MDB_val key{};
    MDB_val value{};
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) visit(text(key), text(value));
    mdb_cursor_close(cursor);
  };
  MDB_dbi main = 0;
  check(mdb_dbi_open(txn, nullptr, 0, &main));
  std::vector<std::string> names;
  each(main, [&](const std::string& name, const std::string&) { names.push_back(name); });
  for (const std::string& name : names) {
    MDB_dbi dbi = 0;
    check(mdb_dbi_open(txn, name.c_str(), 0, &dbi));
    auto& rows = out[name];
    each(dbi, [&](std::string key, std::string value) { rows.emplace_back(std::move(key), std::move(value)); });
  }
  mdb_txn_abort(txn);
  mdb_env_close(env);
  return out;
}

inline std::string to_hex(std::string_view bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (const char byte : bytes) {
    out.push_back(digits[static_cast<unsigned char>(byte) >> 4]);
    out.push_back(digits[static_cast<unsigned char>(byte) & 15]);
  }
  return out;
}

}  // namespace state_test
