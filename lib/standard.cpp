#include "flotilla/standard.hpp"

#include <string>
#include <utility>

namespace flotilla {

namespace {

constexpr char no = '\0';
constexpr char yes = '\1';
constexpr char absent = '\2';

Bytes flag(bool value) {
  return Bytes(1, value ? yes : no);
}

Result<Bytes> put(WriteTxn& txn, const Args& args) {
  if (auto ok = args.expect(3); !ok) return fail(ok.error());
  if (auto ok = txn.table(args[0]).put(args[1], args[2]); !ok) return fail(ok.error());
  return Bytes();
}

Result<Bytes> put_if_absent(WriteTxn& txn, const Args& args) {
  if (auto ok = args.expect(3); !ok) return fail(ok.error());
  const Result<bool> inserted = txn.table(args[0]).insert(args[1], args[2]);
  if (!inserted) return fail(inserted.error());
  return flag(*inserted);
}

/// The argument form of cas and compare_and_swap: three arguments require absence, four a value.
struct SwapArgs {
  std::string_view table, key;
  std::optional<std::string_view> expected;
  std::string_view desired;
};

Result<SwapArgs> swap_args(const Args& args) {
  if (auto ok = args.expect(3, 4); !ok) return fail(ok.error());
  if (args.size() == 3) return SwapArgs{args[0], args[1], std::nullopt, args[2]};
  return SwapArgs{args[0], args[1], args[2], args[3]};
}

Result<Swap> swap(WriteTxn& txn, const SwapArgs& args) {
  WriteTable table = txn.table(args.table);
  const std::optional<std::string_view> found = table.get(args.key);
  if (found != args.expected) {
    if (!found) return Swap{false, std::nullopt};
    return Swap{false, Bytes(*found)};
  }
  if (auto ok = table.put(args.key, args.desired); !ok) return fail(ok.error());
  return Swap{true, Bytes(args.desired)};
}

Result<Bytes> cas(WriteTxn& txn, const Args& args) {
  const Result<SwapArgs> parsed = swap_args(args);
  if (!parsed) return fail(parsed.error());
  Result<Swap> done = swap(txn, *parsed);
  if (!done) return fail(done.error());
  if (!done->value) return fail(Errc::not_found, "cas: the key is absent, and a value was expected");
  return std::move(*done->value);
}

Result<Bytes> compare_and_swap(WriteTxn& txn, const Args& args) {
  const Result<SwapArgs> parsed = swap_args(args);
  if (!parsed) return fail(parsed.error());
  const Result<Swap> done = swap(txn, *parsed);
  if (!done) return fail(done.error());
  if (!done->value) return Bytes(1, absent);
  return flag(done->swapped) + *done->value;
}

Result<Bytes> compare_and_remove(WriteTxn& txn, const Args& args) {
  if (auto ok = args.expect(3); !ok) return fail(ok.error());
  WriteTable table = txn.table(args[0]);
  if (table.get(args[1]) != std::optional<std::string_view>(args[2])) return flag(false);
  const Result<bool> removed = table.remove(args[1]);
  if (!removed) return fail(removed.error());
  return flag(*removed);
}

Result<Bytes> remove(WriteTxn& txn, const Args& args) {
  if (auto ok = args.expect(2); !ok) return fail(ok.error());
  WriteTable table = txn.table(args[0]);
  // Not asked of a table that is missing: a removal must not create one.
  if (!table.contains(args[1])) return flag(false);
  const Result<bool> removed = table.remove(args[1]);
  if (!removed) return fail(removed.error());
  return flag(*removed);
}

Result<Bytes> noop(WriteTxn&, const Args& args) {
  if (auto ok = args.expect(0); !ok) return fail(ok.error());
  return Bytes();
}

tl::unexpected<Error> foreign_result() {
  return fail(Errc::command_failed, "the command returned what no standard command returns; was it replaced?");
}

}  // namespace

Commands standard_commands() {
  Commands commands;
  commands.add("put", put)
      .add("put_if_absent", put_if_absent)
      .add("cas", cas)
      .add("compare_and_swap", compare_and_swap)
      .add("compare_and_remove", compare_and_remove)
      .add("remove", remove)
      .add("noop", noop);
  return commands;
}

Result<bool> decode_flag(Result<Bytes> result) {
  if (!result) return fail(std::move(result).error());
  if (result->size() != 1 || (result->front() != no && result->front() != yes)) return foreign_result();
  return result->front() == yes;
}

Result<Swap> decode_swap(Result<Bytes> result) {
  if (!result) return fail(std::move(result).error());
  if (result->empty()) return foreign_result();
  switch (result->front()) {
    case absent:
      if (result->size() != 1) return foreign_result();
      return Swap{false, std::nullopt};
    case no: return Swap{false, result->substr(1)};
    case yes: return Swap{true, result->substr(1)};
    default: return foreign_result();
  }
}

}  // namespace flotilla
