#include "log/identity.hpp"

#include <fmt/format.h>

#include "base/assert.hpp"
#include "base/codec.hpp"
#include "base/crc32c.hpp"

namespace flotilla::log {
namespace {

// FORMAT.md#identity
constexpr std::string_view magic = "FLOTNODE";
constexpr std::uint32_t version = 1;
constexpr std::size_t prefix_bytes = 8 + 4 + 4;
constexpr std::size_t identity_bytes = prefix_bytes + 4 * 8;

}  // namespace

Result<Identity> read_identity(FileSystem& files, const std::string& path) {
  const Result<std::string> bytes = read_file(files, path);
  if (!bytes) return fail(bytes.error());
  Decoder in(*bytes);
  if (in.raw(magic.size()) != magic) return fail(Errc::damaged, path + ": not an identity file");
  const std::uint32_t found_version = in.u32();
  const std::uint32_t crc = in.u32();
  // The checksum comes first: a flipped bit in the version is damage, not the future.
  const std::string_view head = std::string_view(*bytes).substr(0, 12);
  if (!in.ok() || crc32c(in.rest(), crc32c(head)) != crc) return fail(Errc::damaged, path + ": checksum does not hold");
  if (found_version != version) {
    return fail(Errc::version_unsupported,
                fmt::format("{}: format version {}, this build knows {}", path, found_version, version));
  }
  Identity identity;
  identity.cluster_id.high = in.u64();
  identity.cluster_id.low = in.u64();
  identity.node_id.value = in.u64();
  identity.incarnation = in.u64();
  if (!in.done()) return fail(Errc::damaged, path + ": wrong length");
  return identity;
}

Result<void> write_identity(FileSystem& files, const std::string& path, const Identity& identity) {
  FLOTILLA_ASSERT(identity.node_id);
  std::string body;
  Encoder(body)
      .u64(identity.cluster_id.high)
      .u64(identity.cluster_id.low)
      .u64(identity.node_id.value)
      .u64(identity.incarnation);
  std::string bytes;
  Encoder out(bytes);
  out.raw(magic).u32(version);
  out.u32(crc32c(body, crc32c(bytes))).raw(body);
  FLOTILLA_ASSERT(bytes.size() == identity_bytes);
  return write_file_durably(files, path, bytes);
}

}  // namespace flotilla::log
