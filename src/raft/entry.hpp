// A log entry, as the core, the log, the wire and the applier all see it.
#pragma once

#include <cstdint>

#include "base/bytes.hpp"
#include "flotilla/types.hpp"

namespace flotilla::raft {

/// Numbers are part of the record format (log/FORMAT.md#record). A member that meets an unknown one stops.
enum class EntryType : std::uint8_t {
  noop = 0,           ///< begins a leader's term; empty payload
  command = 1,        ///< payload: state/payload.hpp
  configuration = 2,  ///< payload: raft/configuration.hpp; in force as soon as it is in the log
  session = 3,        ///< opens a session; payload: state/payload.hpp
};

/// One entry. Its record is {crc32c, length, type, term, index, time, payload}: alike on every member's disk and on the
/// wire, so its checksum is computed once, by the leader that appends it, verified at each decode and carried along.
struct Entry {
  Term term;
  Index index;
  EntryType type = EntryType::noop;
  std::uint64_t time = 0;  ///< microseconds since the epoch, clamped by the core: never decreasing along the log
  std::uint32_t crc = 0;   ///< of the record after the crc field; see seal()
  SharedBytes payload;

  friend bool operator==(const Entry&, const Entry&) = default;
};

/// Bytes of a record around its payload: crc32c u32, length u32, type u8 and three zero bytes, term u64, index u64,
/// time u64. `length` counts the payload alone.
inline constexpr std::size_t record_header_bytes = 4 + 4 + 4 + 8 + 8 + 8;
inline std::size_t record_bytes(const Entry& entry) {
  return record_header_bytes + entry.payload.size();
}

/// Writes the record's header (record_header_bytes of it) with entry.crc.
void put_record_header(char* to, const Entry& entry) noexcept;
/// The checksum that belongs into entry.crc.
std::uint32_t record_crc(const Entry& entry) noexcept;
/// Sets entry.crc.
inline void seal(Entry& entry) noexcept {
  entry.crc = record_crc(entry);
}

/// What parse_record found at the start of `bytes`.
enum class RecordState : std::uint8_t {
  whole,     ///< entry is set and its checksum holds
  short_of,  ///< more bytes are needed
  damaged,   ///< checksum, padding or length is wrong
};
/// Reads the record at the start of `bytes`, a part of the buffer `owner` keeps alive: the payload is a slice, not a
/// copy. A length over `payload_bytes_max` is damage. An unknown type is `whole`: the reader decides.
RecordState parse_record(const std::shared_ptr<const void>& owner, std::string_view bytes,
                         std::size_t payload_bytes_max, Entry& entry);

}  // namespace flotilla::raft
