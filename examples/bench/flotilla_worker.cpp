// A member that is asked by callers in its own process.
//
//   flotilla_worker --data DIR [--listen ADDRESS [--found | --join ADDRESS] --voters N] [--threads]
//
// Callers are completions, which begin the next command where the one before ended; with --threads they are threads
// that wait for futures.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include <flotilla/flotilla.hpp>
#include <flotilla/standard.hpp>
#include "workload.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flotilla;
using namespace flotilla::bench;

constexpr std::string_view table = "bench";

struct Settings {
  Options options;
  std::size_t voters = 1;
  bool threads = false;
};

class FlotillaTarget final : public Target {
 public:
  FlotillaTarget(DB& db, const Settings& settings) : db_(db), options_(settings.options), threads_(settings.threads) {}

  bool offers(Kind) const override { return true; }
  bool blocking(Kind kind) const override { return threads_ || kind == Kind::get_local || kind == Kind::scan; }
  bool leads() const override { return db_.is_leader(); }

  std::string report() const override {
    const Metrics metrics = db_.metrics();
    std::string out = fmt::format("{{\"logged_entries\": {}, \"applied_entries\": {}", metrics.logged_entries,
                                  metrics.applied_entries);
    const auto add = [&](std::string_view name, const Distribution& stage) {
      const auto us = [](std::chrono::nanoseconds time) { return static_cast<double>(time.count()) / 1000; };
      out += fmt::format(R"(, "{}": {{"count": {}, "mean": {:.1f}, "p50": {:.1f}, "p99": {:.1f}, "longest": {:.1f}}})",
                         name, stage.count, us(stage.mean()), us(stage.p50), us(stage.p99), us(stage.longest));
    };
    add("queue", metrics.queue);
    add("log_wait", metrics.log_wait);
    add("log_write", metrics.log_write);
    add("log_sync", metrics.log_sync);
    add("quorum", metrics.quorum);
    add("apply_wait", metrics.apply_wait);
    add("apply", metrics.apply);
    add("completion", metrics.completion);
    add("command", metrics.command);
    out += R"(, "options": {)";
    const auto bound = [&](std::string_view name, std::uint64_t bytes) {
      out += fmt::format(R"({}"{}": {})", out.back() == '{' ? "" : ", ", name, bytes);
    };
    const Options& with = options_;
    bound("log_cache_bytes", with.log_cache_bytes);
    bound("pending_bytes_max", with.pending_bytes_max);
    bound("batch_bytes_max", with.batch_bytes_max);
    bound("segment_bytes", with.segment_bytes);
    bound("checkpoint_log_bytes", with.checkpoint_log_bytes);
    bound("checkpoint_growth_bytes", with.checkpoint_growth_bytes);
    return out + "}}";
  }

  void start(Operation& operation) override {
    switch (operation.kind) {
      case Kind::put: return command("put", {table, operation.keys[0], operation.value}, operation);
      case Kind::cas: return command("cas", {table, operation.keys[0], operation.expected, operation.value}, operation);
      case Kind::put_ten: return put_ten(operation);
      case Kind::get: return get(operation);
      case Kind::get_local: return operation.end(found(operation));
      case Kind::scan: return operation.end(scan(operation));
    }
  }

 private:
  void command(std::string_view name, std::span<const std::string_view> args, Operation& operation) {
    if (threads_) return operation.end(db_.command(name, args).get().has_value());
    db_.command(name, args, [&operation](const Result<Bytes>& result) { operation.end(result.has_value()); });
  }
  void command(std::string_view name, std::initializer_list<std::string_view> args, Operation& operation) {
    command(name, std::span(args.begin(), args.size()), operation);
  }

  void put_ten(Operation& operation) {
    std::vector<std::string_view> args{operation.value};
    args.insert(args.end(), operation.keys.begin(), operation.keys.end());
    command("put_ten", args, operation);
  }

  void get(Operation& operation) {
    if (threads_) {
      const auto snapshot = db_.read(Consistency::linearizable);
      return operation.end(snapshot && snapshot->table(table).get(operation.keys[0]));
    }
    db_.barrier([this, &operation](const Result<Index>& reached) { operation.end(reached && found(operation)); });
  }

  bool found(const Operation& operation) {
    const auto snapshot = db_.read();
    return snapshot && snapshot->table(table).get(operation.keys[0]).has_value();
  }

  bool scan(const Operation& operation) {
    const auto snapshot = db_.read();
    if (!snapshot) return false;
    std::size_t bytes = 0;
    std::size_t count = 0;
    for (auto [key, value] : snapshot->table(table).range(operation.keys[0])) {
      bytes += key.size() + value.size();
      if (++count == scan_length) break;
    }
    return bytes > 0;
  }

  DB& db_;
  const Options& options_;
  const bool threads_;
};

Commands commands() {
  Commands all = standard_commands();
  all.add("put_ten", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    WriteTable to = txn.table(table);
    for (std::size_t i = 1; i < args.size(); ++i) {
      if (auto put = to.put(args[i], args[0]); !put) return fail(put.error());
    }
    return Bytes();
  });
  return all;
}

Result<void> wait_for_voters(const DB& db, std::size_t count) {
  const auto end = std::chrono::steady_clock::now() + 30s;
  while (std::chrono::steady_clock::now() < end) {
    const Status status = db.status();
    const auto voters = std::count_if(status.members.begin(), status.members.end(), [](auto& m) { return m.voter; });
    if (static_cast<std::size_t>(voters) == count && status.leader) return {};
    std::this_thread::sleep_for(5ms);
  }
  return fail(Errc::timeout, fmt::format("the members did not become {} voters", count));
}

std::optional<Settings> parse(int count, char** words) {
  Settings settings;
  for (int at = 1; at < count; ++at) {
    const std::string_view word = words[at];
    if (word == "--threads") {
      settings.threads = true;
    } else if (word == "--found") {
      settings.options.found = true;
    } else if (at + 1 == count) {
      return std::nullopt;
    } else if (const std::string value = words[++at]; word == "--data") {
      settings.options.data_dir = value;
    } else if (word == "--listen") {
      settings.options.listen = value;
    } else if (word == "--join") {
      settings.options.join = {value};
    } else if (word == "--voters") {
      settings.voters = std::strtoul(value.c_str(), nullptr, 10);
    } else {
      return std::nullopt;
    }
  }
  return settings;
}

}  // namespace

int main(int count, char** words) {
  const std::optional<Settings> settings = parse(count, words);
  if (!settings) {
    fmt::print(stderr, "usage: flotilla_worker --data DIR [--listen A [--found | --join A] --voters N] [--threads]\n");
    return 2;
  }
  Result<DB> db = DB::open(settings->options, commands());
  Result<void> ready = db ? wait_for_voters(*db, settings->voters) : Result<void>(fail(db.error()));
  if (!ready) {
    fmt::print(stderr, "flotilla_worker: {}\n", ready.error().message());
    return 1;
  }
  FlotillaTarget target(*db, *settings);
  return serve(target);
}
