#include "raft/entry.hpp"

#include "base/assert.hpp"
#include "base/codec.hpp"
#include "base/crc32c.hpp"

namespace flotilla::raft {
namespace {

// Offsets in a record; log/FORMAT.md#record.
constexpr std::size_t crc_at = 0;
constexpr std::size_t length_at = 4;
constexpr std::size_t type_at = 8;
constexpr std::size_t padding_at = 9;
constexpr std::size_t term_at = 12;
constexpr std::size_t index_at = 20;
constexpr std::size_t time_at = 28;
static_assert(time_at + 8 == record_header_bytes);

bool padding_is_zero(std::string_view bytes) {
  return bytes[padding_at] == 0 && bytes[padding_at + 1] == 0 && bytes[padding_at + 2] == 0;
}

}  // namespace

void put_record_header(char* to, const Entry& entry) noexcept {
  put_fixed<std::uint32_t>(to + crc_at, entry.crc);
  put_fixed<std::uint32_t>(to + length_at, static_cast<std::uint32_t>(entry.payload.size()));
  put_fixed<std::uint32_t>(to + type_at, static_cast<std::uint32_t>(entry.type));
  put_fixed<std::uint64_t>(to + term_at, entry.term.value);
  put_fixed<std::uint64_t>(to + index_at, entry.index.value);
  put_fixed<std::uint64_t>(to + time_at, entry.time);
}

std::uint32_t record_crc(const Entry& entry) noexcept {
  char header[record_header_bytes];
  put_record_header(header, entry);
  const std::string_view covered(header + length_at, record_header_bytes - length_at);
  return crc32c(entry.payload.view(), crc32c(covered));
}

RecordState parse_record(const std::shared_ptr<const void>& owner, std::string_view bytes,
                         std::size_t payload_bytes_max, Entry& entry) {
  if (bytes.size() < record_header_bytes) return RecordState::short_of;
  const std::size_t length = get_fixed<std::uint32_t>(bytes.data() + length_at);
  if (length > payload_bytes_max) return RecordState::damaged;
  if (bytes.size() - record_header_bytes < length) return RecordState::short_of;
  if (!padding_is_zero(bytes)) return RecordState::damaged;
  const auto crc = get_fixed<std::uint32_t>(bytes.data() + crc_at);
  if (crc != crc32c(bytes.substr(length_at, record_header_bytes - length_at + length))) return RecordState::damaged;

  entry.crc = crc;
  entry.type = static_cast<EntryType>(bytes[type_at]);
  entry.term = Term{get_fixed<std::uint64_t>(bytes.data() + term_at)};
  entry.index = Index{get_fixed<std::uint64_t>(bytes.data() + index_at)};
  entry.time = get_fixed<std::uint64_t>(bytes.data() + time_at);
  entry.payload = SharedBytes(owner, bytes.substr(record_header_bytes, length));
  FLOTILLA_ASSERT(entry.payload.size() == length);
  return RecordState::whole;
}

}  // namespace flotilla::raft
