// What recovery makes of whatever lies on the disk: a log that works, or a refusal that changes nothing.
//
// Input: whether checksums are put right first, how many bytes (in sectors) segment 1 has, then segments 1 and 2.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/codec.hpp"
#include "base/crc32c.hpp"
#include "log/format.hpp"
#include "log/log.hpp"
#include "log/memory_file.hpp"

using namespace flotilla;

namespace {

/// Makes the checksums of a block's records and header hold, so that what they cover is looked at.
void mend_block(std::string& segment, std::size_t block) {
  char* const header = segment.data() + block;
  const std::size_t room = segment.size() - block;
  const std::size_t bytes = std::min<std::uint64_t>(get_fixed<std::uint64_t>(header + 48), room);
  std::uint32_t records_crc = 0;
  for (std::size_t at = log::block_header_bytes; at + raft::record_header_bytes <= bytes;) {
    const std::size_t length = get_fixed<std::uint32_t>(header + at + 4);
    if (length > bytes - at - raft::record_header_bytes) break;
    put_fixed(header + at, crc32c({header + at + 4, raft::record_header_bytes - 4 + length}));
    records_crc = crc32c({header + at, 4}, records_crc);
    at += raft::record_header_bytes + length;
  }
  put_fixed(header + 120, records_crc);
  put_fixed(header + 124, crc32c({header, 124}));
}

std::string mended(std::string segment) {
  std::uint32_t previous = 0;
  for (std::size_t at = 0; at + log::sector_bytes <= segment.size(); at += log::sector_bytes) {
    if (std::string_view(segment).substr(at, 8) != "FLOTBLOK") continue;
    put_fixed(segment.data() + at + 60, previous);
    mend_block(segment, at);
    previous = get_fixed<std::uint32_t>(segment.data() + at + 124);
  }
  return segment;
}

bool usable(log::Log& log) {
  std::size_t count = 0;
  while (log.first_index() + count <= log.last_index()) {
    const auto some = log.read(log.first_index() + count, 4096);
    if (!some || some->empty()) return false;
    count += some->size();
  }
  const log::Log::Write idle{};
  return log.append({&idle, 1}).has_value();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Decoder in(std::string_view(reinterpret_cast<const char*>(data), size));
  const bool mend = in.u8() % 2 == 1;
  const std::size_t first_bytes = std::min<std::size_t>(in.u8() * log::sector_bytes, in.remaining());
  if (!in.ok()) return 0;
  log::MemoryFileSystem files;
  if (!files.make_directory("log") || !files.sync_directory(".")) std::abort();
  const std::string first(in.raw(first_bytes));
  const std::string second(in.rest());
  files.set_contents("log/" + log::segment_name(1), mend ? mended(first) : first);
  if (!second.empty()) files.set_contents("log/" + log::segment_name(2), mend ? mended(second) : second);
  const std::string before = files.contents("log/" + log::segment_name(1));

  const log::LogOptions options{
      .directory = "log", .segment_bytes = 4096, .payload_bytes_max = 4096, .prepare_ahead = false};
  auto log = log::Log::open(files, options);
  if (!log) {
    if (log.error() != Errc::damaged && log.error() != Errc::version_unsupported) std::abort();
    if (files.contents("log/" + log::segment_name(1)) != before) std::abort();
    return 0;
  }
  const log::Log::Recovered found = (*log)->recovered();
  if (!usable(**log)) std::abort();
  // What was found is found again, also after a loss of power.
  log->reset();
  files.crash([] { return false; });
  log = log::Log::open(files, options);
  if (!log || (*log)->recovered().torn_tail) std::abort();
  if ((*log)->recovered().last_index != found.last_index) std::abort();
  if ((*log)->recovered().hard_state != found.hard_state) std::abort();
  return 0;
}
