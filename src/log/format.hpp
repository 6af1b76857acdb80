// Blocks and segment names as bytes. The reference is FORMAT.md; nothing else in this folder knows an offset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "flotilla/types.hpp"
#include "raft/ready.hpp"

namespace flotilla::log {

inline constexpr std::size_t sector_bytes = 512;  ///< blocks begin at multiples of it; the unit in which writes tear
inline constexpr std::size_t block_header_bytes = 128;
inline constexpr std::uint32_t format_version = 1;
static_assert(block_header_bytes <= sector_bytes, "a header must never be torn by itself");

/// What stands before the records of one block. FORMAT.md#block
struct BlockHeader {
  bool begins_anew = false;   ///< every entry before this block is dropped; it has no records itself
  std::uint64_t stream = 0;   ///< of this log, drawn at random when it was made
  std::uint64_t segment = 0;  ///< the file this block was written to ...
  std::uint64_t offset = 0;   ///< ... and where in it
  std::uint64_t number = 0;   ///< 1, 2, 3, ... along the stream
  std::uint64_t bytes = 0;    ///< header and records, without the zeros up to the next multiple of sector_bytes
  std::uint32_t records = 0;
  std::uint32_t previous_crc = 0;     ///< `crc` of the block before; 0 in the first
  std::uint64_t durable_through = 0;  ///< the newest block known durable when this one was written
  Index first_index;                  ///< of the records; 0 without records
  Index last_index;                   ///< of the log after this block ...
  Term last_term;                     ///< ... and its term
  raft::HardState hard_state;
  Index commit_index;
  std::uint32_t records_crc = 0;  ///< crc32c over the records' own checksums, in order
  std::uint32_t crc = 0;          ///< crc32c over the header before this field
};

/// Sets header.crc and writes block_header_bytes.
void put_block_header(char* to, BlockHeader& header) noexcept;

enum class HeaderState : std::uint8_t {
  valid,
  invalid,        ///< no header, or its checksum does not hold
  other_version,  ///< a header of a later format: its checksum holds
};
HeaderState parse_block_header(std::string_view bytes, BlockHeader& header) noexcept;

/// `bytes` rounded up to whole sectors.
constexpr std::uint64_t whole_sectors(std::uint64_t bytes) noexcept {
  return (bytes + sector_bytes - 1) / sector_bytes * sector_bytes;
}

/// "00000000000000a1.seg"
std::string segment_name(std::uint64_t id);
/// The id that `name` says; none if it is no segment's name.
std::optional<std::uint64_t> segment_id(std::string_view name);

bool all_zero(std::string_view bytes) noexcept;

}  // namespace flotilla::log
