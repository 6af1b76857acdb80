#include "model.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <xxhash.h>

#include "base/assert.hpp"
#include "flotilla/txn.hpp"
#include "lmdb_file.hpp"
#include "state/payload.hpp"

namespace crash {
namespace {

constexpr std::uint64_t entries_per_copy = 32;
constexpr const char* sums_table = "sums";

/// One in ten fails after it wrote, and must leave nothing.
bool fails(std::uint64_t number) {
  return number % 10 == 7;
}

std::string value_of(std::uint64_t number, std::size_t bytes) {
  std::string value(bytes, '\0');
  Random random(number);
  for (std::size_t at = 0; at < bytes; at += 8) {
    const std::uint64_t word = random();
    value.replace(at, std::min<std::size_t>(8, bytes - at), reinterpret_cast<const char*>(&word),
                  std::min<std::size_t>(8, bytes - at));
  }
  return value;
}

std::size_t size_of_value(Random& random) {
  if (random.one_in(12)) return 3000 + random.below(9000);  // pages of its own
  return random.one_in(4) ? 500 + random.below(1200) : 1 + random.below(200);
}

/// All that the command of this number does.
template <class World>
void work(World& world, std::uint64_t number) {
  Random random(number);
  world.count(number);
  for (std::uint64_t writes = 1 + random.below(4); writes > 0; --writes) {
    const std::string table =
        random.one_in(40) ? fmt::format("new{}", random.below(20)) : fmt::format("t{}", random.below(3));
    const std::string key = fmt::format("key{:03}", random.below(50));
    const std::string pair = fmt::format("{:02}", random.below(30));
    switch (random.below(8)) {
      case 0:
      case 1: world.remove(table, key); break;
      case 2:
      case 3: world.add("pairs", key.substr(0, 4), pair); break;
      case 4: world.drop("pairs", key.substr(0, 4), pair); break;
      default: {
        const std::size_t bytes = size_of_value(random);
        world.put(table, key, value_of(random(), bytes));
      }
    }
  }
}

std::string chained(std::uint64_t before, std::uint64_t number) {
  return fmt::format("{:016x}", XXH3_64bits_withSeed(&number, sizeof number, before));
}

std::uint64_t number_from(std::string_view text, int base) {
  std::uint64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number, base);
  return number;
}

struct Database {
  flotilla::WriteTxn& txn;
  void put(const std::string& table, const std::string& key, const std::string& value) {
    static_cast<void>(txn.table(table).put(key, value));
  }
  void remove(const std::string& table, const std::string& key) { static_cast<void>(txn.table(table).remove(key)); }
  void add(const std::string& table, const std::string& key, const std::string& value) {
    static_cast<void>(txn.duplicates_table(table).put(key, value));
  }
  void drop(const std::string& table, const std::string& key, const std::string& value) {
    static_cast<void>(txn.duplicates_table(table).remove(key, value));
  }
  void count(std::uint64_t number) {
    auto sums = txn.table(sums_table);
    const std::uint64_t count = number_from(sums.get("count").value_or("0"), 10) + 1;
    const std::uint64_t chain = number_from(sums.get("chain").value_or("0"), 16);
    static_cast<void>(sums.put("count", std::to_string(count)));
    static_cast<void>(sums.put("chain", chained(chain, number)));
  }
};

}  // namespace

std::uint64_t mixed(std::uint64_t seed, std::uint64_t with) {
  Random random(seed ^ (with + 1) * 0xd6e8feb86659fd93u);
  random();
  return random();
}

flotilla::Commands commands() {
  flotilla::Commands commands;
  commands.add("work", [](flotilla::WriteTxn& txn, const flotilla::Args& args) -> flotilla::Result<flotilla::Bytes> {
    const std::uint64_t number = number_from(args[0], 10);
    Database database{txn};
    work(database, number);
    if (fails(number)) return flotilla::fail(flotilla::Errc::not_found, "as it should");
    return std::to_string(txn.index().value);
  });
  return commands;
}

std::string encode_work(std::uint64_t session, std::uint64_t sequence, std::uint64_t acknowledged_below,
                        std::uint64_t number, std::size_t filler_bytes) {
  const std::string text = std::to_string(number);
  const std::string filler = value_of(number, filler_bytes);
  const std::string_view args[] = {text, filler};
  return std::string(flotilla::state::encode_command({session, sequence}, acknowledged_below, "work", args).view());
}

// ---- the model

void Model::put(const std::string& table, const std::string& key, const std::string& value) {
  std::uint64_t& row = rows_[table + '\0' + key];
  sum_ -= row;
  row = row_hash(table, key, value);
  sum_ += row;
}

void Model::remove(const std::string& table, const std::string& key) {
  const auto at = rows_.find(table + '\0' + key);
  if (at == rows_.end()) return;
  sum_ -= at->second;
  rows_.erase(at);
}

void Model::add(const std::string& table, const std::string& key, const std::string& value) {
  if (pairs_.insert(table + '\0' + key + '\0' + value).second) sum_ += row_hash(table, key, value);
}

void Model::drop(const std::string& table, const std::string& key, const std::string& value) {
  if (pairs_.erase(table + '\0' + key + '\0' + value) > 0) sum_ -= row_hash(table, key, value);
}

void Model::count(std::uint64_t number) {
  const std::string text = chained(chain_, number);
  chain_ = number_from(text, 16);
  put(sums_table, "count", std::to_string(++count_));
  put(sums_table, "chain", text);
}

void Model::apply(const flotilla::raft::Entry& entry) {
  using flotilla::raft::EntryType;
  if (entry.type == EntryType::session) {
    const auto session = flotilla::state::decode_session(entry.payload.view());
    FLOTILLA_ASSERT(session.has_value());
    std::uint64_t& open = session_of_node_[session->node_id.value];
    if (open == session->session) return;
    sessions_.erase(open);
    open = session->session;
    sessions_[open];
  }
  if (entry.type != EntryType::command) return;
  const auto command = flotilla::state::decode_command(entry.payload.view());
  FLOTILLA_ASSERT(command.has_value());
  if (command->call.session != 0) {
    const auto at = sessions_.find(command->call.session);
    if (at == sessions_.end()) return;
    Session& session = at->second;
    session.acknowledged_below = std::max(session.acknowledged_below, command->acknowledged_below);
    if (command->call.sequence < session.acknowledged_below) return;
    if (!session.seen.insert(command->call.sequence).second) return;
  }
  const std::uint64_t number = number_from(command->args[0], 10);
  if (!fails(number)) work(*this, number);
}

// ---- the truth

void Truth::add(const flotilla::raft::Entry& entry) {
  FLOTILLA_ASSERT(entry.index.value == last() + 1);
  entries_.push_back(entry);
  model_.apply(entry);
  sums_.push_back(model_.sum());
  if (last() % entries_per_copy == 0) copies_.insert_or_assign(last(), model_);
}

void Truth::cut(std::uint64_t index) {
  if (index >= last()) return;
  copies_.erase(copies_.upper_bound(index), copies_.end());
  const auto& [from, copy] = *copies_.rbegin();
  model_ = copy;
  for (std::uint64_t i = from + 1; i <= index; ++i) model_.apply(entry(i));
  entries_.resize(index);
  sums_.resize(index + 1);
}

}  // namespace crash
