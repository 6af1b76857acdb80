// CRC-32C (Castagnoli), as in iSCSI and ext4. SSE4.2 where the processor has it, else Boost.CRC: the same value.
#pragma once

#include <cstdint>
#include <string_view>

namespace flotilla {

/// The checksum of `bytes` that follow bytes whose checksum is `before` (0 for none).
std::uint32_t crc32c(std::string_view bytes, std::uint32_t before = 0) noexcept;
/// The portable path alone; the tests' oracle.
std::uint32_t crc32c_portable(std::string_view bytes, std::uint32_t before = 0) noexcept;

}  // namespace flotilla
