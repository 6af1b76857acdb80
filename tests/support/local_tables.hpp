// Runs commands on a real store, without log, network or threads: for tests of commands alone.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "flotilla/command.hpp"
#include "flotilla/txn.hpp"
#include "raft/entry.hpp"
#include "state/payload.hpp"
#include "state/store.hpp"
#include "support/temp_dir.hpp"

namespace flotilla::test {

class LocalTables {
 public:
  explicit LocalTables(Commands commands) {
    state::StoreOptions options;
    options.directory = directory_.path() / "state";
    options.map_size = std::size_t{1} << 30;
    options.sync = false;
    store_ = std::move(state::Store::open(options, std::move(commands)).value());
    apply(raft::EntryType::session, SharedBytes(state::encode_session({NodeId{1}, 1, session})));
  }

  Result<Bytes> run(std::string_view name, std::vector<std::string_view> args) {
    const state::CallId call{session, ++sequence_};
    std::vector<state::Outcome> outcomes =
        apply(raft::EntryType::command, state::encode_command(call, sequence_, name, args));
    return std::move(outcomes.at(0).result);
  }
  ReadTxn read() { return std::move(store_->read().value()); }

 private:
  static constexpr std::uint64_t session = 7;

  std::vector<state::Outcome> apply(raft::EntryType type, SharedBytes payload) {
    raft::Entry entry;
    entry.term = Term{1};
    entry.index = ++index_;
    entry.type = type;
    entry.time = index_.value;
    entry.payload = std::move(payload);
    raft::seal(entry);
    return store_->apply({&entry, 1}).value();
  }

  TempDir directory_;
  std::unique_ptr<state::Store> store_;
  Index index_;
  std::uint64_t sequence_ = 0;
};

}  // namespace flotilla::test
