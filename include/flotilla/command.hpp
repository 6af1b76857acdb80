// Commands: the application's own functions, run on every member in Raft log order.
//
//   flotilla::Commands commands;
//   commands.add("greet", [](flotilla::WriteTxn& txn, const flotilla::Args& args) -> flotilla::Result<flotilla::Bytes>
//   {
//     if (auto ok = args.expect(1); !ok) return flotilla::fail(ok.error());
//     txn.table("greetings").put(args[0], "hello");
//     return "greeted";
//   });
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "flotilla/error.hpp"
#include "flotilla/types.hpp"

namespace flotilla {

class WriteTxn;

/// A command's arguments: byte strings, valid until the command returns.
class Args {
 public:
  explicit Args(std::span<const std::string_view> values) : values_(values) {}

  std::size_t size() const noexcept { return values_.size(); }
  bool empty() const noexcept { return values_.empty(); }
  /// Throws std::out_of_range past the end, which fails the command (Errc::command_failed) alike on every member.
  std::string_view operator[](std::size_t position) const;
  auto begin() const noexcept { return values_.begin(); }
  auto end() const noexcept { return values_.end(); }

  /// invalid_argument, naming both counts, unless there are exactly `count`, or between `least` and `most`.
  [[nodiscard]] Result<void> expect(std::size_t count) const { return expect(count, count); }
  [[nodiscard]] Result<void> expect(std::size_t least, std::size_t most) const;

 private:
  std::span<const std::string_view> values_;
};

/// The function behind a command.
///
/// It runs on the apply thread of every member, and may run more than once for one call (a batch that fails is run
/// again; its first writes are gone by then). So it must be a pure function of the transaction and the arguments: no
/// clock, no randomness, no environment, no network, no iteration over unordered containers. What it needs of those it
/// takes from WriteTxn: time(), random(), index().
///
/// Returning a value commits its writes; returning an error or throwing rolls them back, and only them. An Errc of an
/// error is kept; a foreign code becomes command_failed. std::bad_alloc is a fault of this member and stops its apply.
/// Must not call into the DB (would_deadlock), and must not keep the transaction, a table, a cursor or a view of it.
using CommandFn = std::function<Result<Bytes>(WriteTxn&, const Args&)>;

/// Registry of commands; copied into the database by DB::open. Thread: any one at a time.
class Commands {
 public:
  static constexpr std::size_t name_bytes_max = 128;
  static constexpr std::size_t commands_max = 4096;

  /// Registers `run` under `name` (1 to 128 bytes). The last registration of a name wins, so an application may replace
  /// a standard command; open() logs a warning for each replaced one. A malformed name makes open() fail.
  Commands& add(std::string name, CommandFn run);
  /// Adds all of `other`; names in both take the function of `other`.
  Commands& add(const Commands& other);

  /// The function, or nullptr. Valid until the registry changes.
  const CommandFn* find(std::string_view name) const;
  std::size_t size() const noexcept { return commands_.size(); }
  /// In order of names.
  const std::map<std::string, CommandFn, std::less<>>& all() const noexcept { return commands_; }
  /// Names that were registered more than once.
  const std::set<std::string, std::less<>>& replaced() const noexcept { return replaced_; }
  /// invalid_argument if a malformed name was added, or more than commands_max names.
  [[nodiscard]] Result<void> check() const;

 private:
  std::map<std::string, CommandFn, std::less<>> commands_;
  std::set<std::string, std::less<>> replaced_;
  bool malformed_ = false;
};

}  // namespace flotilla
