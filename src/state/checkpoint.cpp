#include "state/checkpoint.hpp"

#include <fcntl.h>

#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/codec.hpp"
#include "base/crc32c.hpp"
#include "state/file.hpp"
#include "state/lmdb.hpp"

namespace flotilla::state {
namespace {

constexpr std::string_view name = "checkpoint";
constexpr std::string_view new_name = "checkpoint.tmp";
constexpr std::uint32_t magic = 0x50435446;  // "FTCP"
constexpr std::uint32_t version = 1;
constexpr std::size_t bytes_max = 4096;
constexpr std::size_t crc_bytes = 4;

std::string encode(const Checkpoint& checkpoint) {
  std::string bytes;
  Encoder(bytes)
      .u32(magic)
      .u32(version)
      .u64(checkpoint.index.value)
      .u64(checkpoint.term.value)
      .u8(checkpoint.installed ? 1 : 0)
      .bytes(checkpoint.meta.bytes);
  const std::uint32_t crc = crc32c(bytes);
  Encoder(bytes).u32(crc);
  return bytes;
}

std::optional<Checkpoint> decode(std::string_view bytes) {
  if (bytes.size() < crc_bytes) return std::nullopt;
  Decoder in(bytes);
  const std::uint32_t read_magic = in.u32();
  const std::uint32_t read_version = in.u32();
  Checkpoint checkpoint;
  checkpoint.index = Index{in.u64()};
  checkpoint.term = Term{in.u64()};
  const std::uint8_t installed = in.u8();
  auto meta = to_meta_page(std::string(in.bytes()));
  const std::uint32_t crc = in.u32();
  if (!in.done() || crc != crc32c(bytes.substr(0, bytes.size() - crc_bytes))) return std::nullopt;
  if (read_magic != magic || read_version != version || installed > 1 || !meta) return std::nullopt;
  checkpoint.installed = installed == 1;
  checkpoint.meta = std::move(*meta);
  return checkpoint;
}

}  // namespace

Result<Checkpoint> read_checkpoint(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / name;
  auto file = FileHandle::open(path, O_RDONLY);
  if (!file) return fail(file.error());
  const auto bytes = file->read_at(0, bytes_max);
  if (!bytes) return fail(bytes.error());
  auto checkpoint = decode(*bytes);
  if (!checkpoint) return fail(Errc::damaged, fmt::format("{} is malformed", path.string()));
  return std::move(*checkpoint);
}

Result<void> write_checkpoint(const std::filesystem::path& directory, const Checkpoint& checkpoint, bool sync) {
  const std::filesystem::path path = directory / new_name;
  auto file = FileHandle::open(path, O_WRONLY | O_CREAT | O_TRUNC);
  if (!file) return fail(file.error());
  if (auto written = file->write_at(0, encode(checkpoint)); !written) return written;
  if (sync) {
    if (auto synced = file->sync(); !synced) return synced;
  }
  std::error_code code;
  std::filesystem::rename(path, directory / name, code);
  if (code) return fail(lmdb::error_of(code.value(), fmt::format("rename {}", path.string())));
  return sync ? sync_directory(directory) : Result<void>();
}

}  // namespace flotilla::state
