#include "flotilla/standard.hpp"

#include <optional>

namespace flotilla {

namespace {

Result<void> without_value(const Result<Bytes>& result) {
  if (!result) return fail(result.error());
  return {};
}

}  // namespace

Result<void> StandardDB::put(std::string_view table, std::string_view key, std::string_view value, CallOptions call) {
  return without_value(db_.command("put", {table, key, value}, call).get());
}

Result<bool> StandardDB::put_if_absent(std::string_view table, std::string_view key, std::string_view value,
                                       CallOptions call) {
  return decode_flag(db_.command("put_if_absent", {table, key, value}, call).get());
}

Result<Swap> StandardDB::compare_and_swap(std::string_view table, std::string_view key,
                                          std::optional<std::string_view> expected, std::string_view desired,
                                          CallOptions call) {
  if (!expected) return decode_swap(db_.command("compare_and_swap", {table, key, desired}, call).get());
  return decode_swap(db_.command("compare_and_swap", {table, key, *expected, desired}, call).get());
}

Result<bool> StandardDB::compare_and_remove(std::string_view table, std::string_view key, std::string_view expected,
                                            CallOptions call) {
  return decode_flag(db_.command("compare_and_remove", {table, key, expected}, call).get());
}

Result<bool> StandardDB::remove(std::string_view table, std::string_view key, CallOptions call) {
  return decode_flag(db_.command("remove", {table, key}, call).get());
}

Result<void> StandardDB::noop(CallOptions call) {
  return without_value(db_.command("noop", {}, call).get());
}

Result<std::optional<Bytes>> StandardDB::get(std::string_view table, std::string_view key, Consistency consistency,
                                             CallOptions call) {
  const Result<ReadTxn> snapshot = db_.read(consistency, call);
  if (!snapshot) return fail(snapshot.error());
  const std::optional<std::string_view> found = snapshot->table(table).get(key);
  if (snapshot->error()) return fail(*snapshot->error());
  if (!found) return std::optional<Bytes>();
  return std::optional<Bytes>(*found);
}

}  // namespace flotilla
