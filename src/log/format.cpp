#include "log/format.hpp"

#include <cstring>

#include <fmt/format.h>

#include "base/codec.hpp"
#include "base/crc32c.hpp"

namespace flotilla::log {
namespace {

constexpr std::string_view magic = "FLOTBLOK";
constexpr std::string_view suffix = ".seg";
constexpr std::size_t id_digits = 16;
constexpr std::size_t crc_at = block_header_bytes - 4;
constexpr std::uint32_t flag_begins_anew = 1;

}  // namespace

void put_block_header(char* to, BlockHeader& header) noexcept {
  std::memcpy(to, magic.data(), magic.size());
  put_fixed(to + 8, format_version);
  put_fixed(to + 12, header.begins_anew ? flag_begins_anew : 0u);
  put_fixed(to + 16, header.stream);
  put_fixed(to + 24, header.segment);
  put_fixed(to + 32, header.offset);
  put_fixed(to + 40, header.number);
  put_fixed(to + 48, header.bytes);
  put_fixed(to + 56, header.records);
  put_fixed(to + 60, header.previous_crc);
  put_fixed(to + 64, header.durable_through);
  put_fixed(to + 72, header.first_index.value);
  put_fixed(to + 80, header.last_index.value);
  put_fixed(to + 88, header.last_term.value);
  put_fixed(to + 96, header.hard_state.term.value);
  put_fixed(to + 104, header.hard_state.voted_for.value);
  put_fixed(to + 112, header.commit_index.value);
  put_fixed(to + 120, header.records_crc);
  header.crc = crc32c({to, crc_at});
  put_fixed(to + crc_at, header.crc);
}

HeaderState parse_block_header(std::string_view bytes, BlockHeader& header) noexcept {
  if (bytes.size() < block_header_bytes || !bytes.starts_with(magic)) return HeaderState::invalid;
  const char* const from = bytes.data();
  header.crc = get_fixed<std::uint32_t>(from + crc_at);
  if (crc32c(bytes.substr(0, crc_at)) != header.crc) return HeaderState::invalid;
  const auto flags = get_fixed<std::uint32_t>(from + 12);
  if (get_fixed<std::uint32_t>(from + 8) != format_version || (flags & ~flag_begins_anew) != 0) {
    return HeaderState::other_version;
  }
  header.begins_anew = (flags & flag_begins_anew) != 0;
  header.stream = get_fixed<std::uint64_t>(from + 16);
  header.segment = get_fixed<std::uint64_t>(from + 24);
  header.offset = get_fixed<std::uint64_t>(from + 32);
  header.number = get_fixed<std::uint64_t>(from + 40);
  header.bytes = get_fixed<std::uint64_t>(from + 48);
  header.records = get_fixed<std::uint32_t>(from + 56);
  header.previous_crc = get_fixed<std::uint32_t>(from + 60);
  header.durable_through = get_fixed<std::uint64_t>(from + 64);
  header.first_index.value = get_fixed<std::uint64_t>(from + 72);
  header.last_index.value = get_fixed<std::uint64_t>(from + 80);
  header.last_term.value = get_fixed<std::uint64_t>(from + 88);
  header.hard_state.term.value = get_fixed<std::uint64_t>(from + 96);
  header.hard_state.voted_for.value = get_fixed<std::uint64_t>(from + 104);
  header.commit_index.value = get_fixed<std::uint64_t>(from + 112);
  header.records_crc = get_fixed<std::uint32_t>(from + 120);
  return HeaderState::valid;
}

std::string segment_name(std::uint64_t id) {
  return fmt::format("{:016x}{}", id, suffix);
}

std::optional<std::uint64_t> segment_id(std::string_view name) {
  if (name.size() != id_digits + suffix.size() || !name.ends_with(suffix)) return std::nullopt;
  std::uint64_t id = 0;
  for (const char digit : name.substr(0, id_digits)) {
    const bool decimal = digit >= '0' && digit <= '9';
    if (!decimal && !(digit >= 'a' && digit <= 'f')) return std::nullopt;
    id = id * 16 + static_cast<std::uint64_t>(decimal ? digit - '0' : digit - 'a' + 10);
  }
  if (id == 0) return std::nullopt;
  return id;
}

bool all_zero(std::string_view bytes) noexcept {
  // The first byte is zero and each equals the one before it: one memcmp at the speed of memory.
  return bytes.empty() || (bytes[0] == '\0' && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace flotilla::log
