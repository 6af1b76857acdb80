#include "state/rows.hpp"

#include <fmt/format.h>

#include "base/codec.hpp"
#include "state/payload.hpp"

namespace flotilla::state {
namespace {

std::string id_key(std::string_view prefix, std::uint64_t id) {
  std::string key(prefix);
  for (int shift = 56; shift >= 0; shift -= 8) key.push_back(static_cast<char>((id >> shift) & 0xff));
  return key;
}

}  // namespace

std::string table_key(std::string_view name) {
  return std::string(table_prefix).append(name);
}

std::string session_key(std::uint64_t session) {
  return id_key(session_prefix, session);
}

std::string node_key(NodeId node_id) {
  return id_key(node_prefix, node_id.value);
}

std::optional<std::uint64_t> id_of_key(std::string_view key, std::string_view prefix) {
  if (!key.starts_with(prefix) || key.size() != prefix.size() + 8) return std::nullopt;
  std::uint64_t id = 0;
  for (const char byte : key.substr(prefix.size())) id = (id << 8) | static_cast<unsigned char>(byte);
  return id;
}

std::string encode_format() {
  std::string out;
  Encoder(out).u32(format_version);
  return out;
}

std::optional<std::uint32_t> decode_format(std::string_view bytes) {
  Decoder in(bytes);
  const std::uint32_t version = in.u32();
  if (!in.ok()) return std::nullopt;  // a later version may say more
  return version;
}

std::string encode(TableKind kind) {
  std::string out;
  Encoder(out).u8(static_cast<std::uint8_t>(kind));
  return out;
}

std::optional<TableKind> decode_kind(std::string_view bytes) {
  Decoder in(bytes);
  const std::uint8_t kind = in.u8();
  if (!in.done() || kind > static_cast<std::uint8_t>(TableKind::sorted_duplicates)) return std::nullopt;
  return static_cast<TableKind>(kind);
}

std::string encode(const AppliedRow& row) {
  std::string out;
  Encoder(out).u64(row.index.value).u64(row.term.value).u64(row.time).u64(row.configuration_index.value);
  return out;
}

bool decode_applied(std::string_view bytes, AppliedRow& row) {
  Decoder in(bytes);
  row.index.value = in.u64();
  row.term.value = in.u64();
  row.time = in.u64();
  row.configuration_index.value = in.u64();
  return in.done();
}

std::string encode(const NodeRow& row) {
  std::string out;
  Encoder(out).u64(row.incarnation).u64(row.session);
  encode_names(out, row.commands);
  return out;
}

std::optional<NodeRow> decode_node(std::string_view bytes) {
  Decoder in(bytes);
  NodeRow row;
  row.incarnation = in.u64();
  row.session = in.u64();
  auto commands = decode_names(in);
  if (!in.done() || !commands) return std::nullopt;
  row.commands = std::move(*commands);
  return row;
}

int Rows::put(std::string_view key, std::string_view value) const {
  MDB_val key_val = lmdb::to_val(key);
  MDB_val value_val = lmdb::to_val(value);
  return mdb_put(txn_, dbi_, &key_val, &value_val, 0);
}

int Rows::get(std::string_view key, std::string_view& value) const {
  MDB_val key_val = lmdb::to_val(key);
  MDB_val value_val{};
  const int code = mdb_get(txn_, dbi_, &key_val, &value_val);
  if (code == 0) value = lmdb::to_view(value_val);
  return code;
}

int Rows::remove(std::string_view key) const {
  MDB_val key_val = lmdb::to_val(key);
  const int code = mdb_del(txn_, dbi_, &key_val, nullptr);
  return code == MDB_NOTFOUND ? 0 : code;
}

Result<Applied> read_applied(const GetRow& get) {
  std::string_view bytes;
  if (const int code = get(format_key, bytes); code != 0) {
    return fail(lmdb::error_of(code, "read the format row"));
  }
  const auto version = decode_format(bytes);
  if (version != format_version) {
    return fail(Errc::version_unsupported,
                fmt::format("the database has format {}, this build knows {}", version.value_or(0), format_version));
  }
  if (const int code = get(applied_key, bytes); code != 0) {
    return fail(lmdb::error_of(code, "read the applied row"));
  }
  AppliedRow row;
  if (!decode_applied(bytes, row)) return fail(Errc::damaged, "the applied row is malformed");
  Applied applied{row.index, row.term, row.time, {}, row.configuration_index};
  const int code = get(configuration_key, bytes);
  if (code == MDB_NOTFOUND) return applied;
  if (code != 0) return fail(lmdb::error_of(code, "read the configuration row"));
  auto configuration = raft::decode_configuration(bytes);
  if (!configuration) return fail(Errc::damaged, "the configuration row is malformed");
  applied.configuration = std::move(*configuration);
  return applied;
}

}  // namespace flotilla::state
