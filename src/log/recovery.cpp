#include "log/recovery.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "base/codec.hpp"
#include "base/crc32c.hpp"
#include "log/window.hpp"

namespace flotilla::log {
namespace {

constexpr std::size_t chunk_bytes = 1u << 20;

class Walker {
 public:
  Walker(FileSystem& files, const LogOptions& options) : files_(files), options_(options) {}

  Result<Chain> run() {
    if (Result<void> done = open_segments(); !done) return fail(std::move(done.error()));
    if (segments_.empty()) return std::move(chain_);
    if (Result<void> done = read_first_headers(); !done) return fail(std::move(done.error()));
    if (Result<void> done = begin(); !done) return fail(std::move(done.error()));
    if (Result<void> done = walk_segments(); !done) return fail(std::move(done.error()));
    if (Result<void> done = judge_rest(); !done) return fail(std::move(done.error()));
    return std::move(chain_);
  }

 private:
  struct Opened {
    SegmentFile segment;
    std::unique_ptr<File> file;
    std::optional<BlockHeader> first;  ///< valid, at offset 0
  };

  tl::unexpected<Error> damage(const Opened& in, std::uint64_t offset, std::string_view found) const {
    return fail(Errc::damaged,
                fmt::format("{}/{} at {}: {}", options_.directory, segment_name(in.segment.id), offset, found));
  }

  Result<void> open_segments() {
    Result<std::vector<std::string>> names = files_.list(options_.directory);
    if (!names) return fail(std::move(names.error()));
    for (const std::string& name : *names) {  // sorted, and so are the ids: fixed width
      const std::optional<std::uint64_t> id = segment_id(name);
      if (!id) continue;
      if (!segments_.empty() && *id != segments_.back().segment.id + 1) {
        return fail(Errc::damaged, fmt::format("{}: segment {} is missing", options_.directory,
                                               segment_name(segments_.back().segment.id + 1)));
      }
      Result<std::unique_ptr<File>> file = files_.open(options_.directory + "/" + name, FileSystem::Mode::read);
      if (!file) return fail(std::move(file.error()));
      Result<std::uint64_t> size = (*file)->size();
      if (!size) return fail(std::move(size.error()));
      segments_.push_back(Opened{{*id, *size}, std::move(*file), std::nullopt});
    }
    return {};
  }

  // A header at offset 0 is never part of a payload, so one that is valid and does not belong there is damage.
  Result<void> read_first_headers() {
    for (Opened& opened : segments_) {
      Result<std::string> bytes = opened.file->read_at(0, block_header_bytes);
      if (!bytes) return fail(std::move(bytes.error()));
      BlockHeader header;
      const HeaderState state = parse_block_header(*bytes, header);
      if (state == HeaderState::other_version) return unknown_version(opened, 0);
      if (state != HeaderState::valid) continue;
      if (header.segment != opened.segment.id || header.offset != 0) {
        return damage(opened, 0,
                      fmt::format("a block of segment {} offset {}", segment_name(header.segment), header.offset));
      }
      if (chain_.stream != 0 && header.stream != chain_.stream) return damage(opened, 0, "a block of another log");
      if (header.number == 0) return damage(opened, 0, "a block without a number");
      chain_.stream = header.stream;
      opened.first = header;
    }
    return {};
  }

  tl::unexpected<Error> unknown_version(const Opened& in, std::uint64_t offset) const {
    return fail(Errc::version_unsupported, fmt::format("{}/{} at {}: a block of a later format", options_.directory,
                                                       segment_name(in.segment.id), offset));
  }

  // Where the chain starts: at block 1 in segment 1; after a trim, at the block that the oldest segment begins with.
  Result<void> begin() {
    const Opened& oldest = segments_.front();
    if (oldest.segment.id == 1) return {};
    if (!oldest.first) return damage(oldest, 0, "the oldest segment does not begin with a block");
    chain_.number = oldest.first->number - 1;
    chain_.crc = oldest.first->previous_crc;
    chain_.hard_state = oldest.first->hard_state;
    const bool has_records = oldest.first->records > 0 && oldest.first->first_index;
    if (has_records) {
      chain_.map.begin_anew(oldest.first->first_index.previous(), Term{});
    } else {
      chain_.map.begin_anew(oldest.first->last_index, oldest.first->last_term);
    }
    return {};
  }

  // The next segment's first block says with which block this one ends: what lies beyond was cut by an earlier
  // recovery.
  std::optional<std::uint64_t> limit_of(std::size_t which) const {
    for (std::size_t later = which + 1; later < segments_.size(); ++later) {
      if (segments_[later].first) return segments_[later].first->number - 1;
    }
    return std::nullopt;
  }

  Result<void> walk_segments() {
    for (std::size_t which = 0; which < segments_.size(); ++which) {
      const std::optional<std::uint64_t> limit = limit_of(which);
      if (limit && chain_.number >= *limit) continue;  // all of it was cut
      end_segment_ = which;
      end_offset_ = 0;
      Window window(*segments_[which].file, chunk_bytes);
      while (!limit || chain_.number < *limit) {
        const Result<bool> good = walk_block(segments_[which], window);
        if (!good) return fail(good.error());
        if (*good) continue;
        // A segment is begun only when every block before it is durable.
        if (limit) return too_short(*limit);
        return {};
      }
    }
    return {};
  }

  tl::unexpected<Error> too_short(std::uint64_t durable_through) const {
    return damage(segments_[end_segment_], end_offset_,
                  fmt::format("{}, but block {} was durable and the chain ends with block {}", broken_, durable_through,
                              chain_.number));
  }

  // True: a good block; the chain is longer. False: it ends here, and broken_ says why.
  Result<bool> walk_block(const Opened& in, Window& window) {
    Result<std::string_view> head = window.view(end_offset_, block_header_bytes);
    if (!head) return fail(std::move(head.error()));
    BlockHeader header;
    switch (parse_block_header(*head, header)) {
      case HeaderState::invalid: return broken(all_zero(*head) ? "no block" : "the header's checksum does not hold");
      case HeaderState::other_version: return unknown_version(in, end_offset_);
      case HeaderState::valid: break;
    }
    if (const std::string_view wrong = contradiction(header, in); !wrong.empty()) return damage(in, end_offset_, wrong);
    const bool fits = header.bytes >= block_header_bytes && header.bytes <= in.segment.bytes &&
                      whole_sectors(header.bytes) <= in.segment.bytes - end_offset_;
    if (!fits) return broken("the block reaches beyond the end of the file");
    Result<std::string_view> bytes = window.view(end_offset_, whole_sectors(header.bytes));
    if (!bytes) return fail(std::move(bytes.error()));
    if (bytes->size() != whole_sectors(header.bytes)) return broken("the file ends inside the block");
    if (!all_zero(bytes->substr(header.bytes))) return broken("the padding is not zero");
    places_.clear();
    if (const std::string_view wrong = parse_records(header, bytes->substr(0, header.bytes)); !wrong.empty()) {
      return broken(wrong);
    }
    if (const std::string_view wrong = contradiction(header); !wrong.empty()) return damage(in, end_offset_, wrong);
    accept(header, in);
    return true;
  }

  Result<bool> broken(std::string_view why) {
    broken_ = why;
    return false;
  }

  // What a block whose checksum holds must not say about its place in the stream.
  std::string_view contradiction(const BlockHeader& header, const Opened& in) const {
    if (header.stream != chain_.stream) return "a block of another log";
    if (header.segment != in.segment.id) return "a block of another segment";
    if (header.offset != end_offset_) return "a block of another place in this segment";
    if (header.number != chain_.number + 1) return "not the next block";
    if (header.previous_crc != chain_.crc) return "the block before is not the one that this block follows";
    if (header.durable_through >= header.number) return "a block that calls itself durable";
    return {};
  }

  // The same about its contents. Nothing of the kind can come from a crash.
  std::string_view contradiction(const BlockHeader& header) const {
    const raft::HardState& old = chain_.hard_state;
    const bool first = walked_ == 0;
    if (header.hard_state.term < old.term) return "the term went back";
    if (header.hard_state.term == old.term && old.voted_for && header.hard_state.voted_for != old.voted_for) {
      return "two votes in one term";
    }
    if (header.commit_index < chain_.commit_index) return "the commit index went back";
    if (header.commit_index > header.last_index) return "the commit index is beyond the log";
    if (header.last_index.value == std::numeric_limits<std::uint64_t>::max()) return "no index can follow";
    if (header.begins_anew) return header.records > 0 ? "records in a block that begins anew" : "";
    Index last = chain_.map.last_index();
    Term term = chain_.map.last_term();
    if (!places_.empty()) {
      const Index from = places_.front().index;
      if (!from) return "an entry with index 0";
      if (from > last.next()) return "entries are missing";
      if (!first && from <= chain_.commit_index) return "a committed entry is superseded";
      if (from <= last) term = from > chain_.map.first_index() ? chain_.map.term_at(from.previous()) : Term{};
      last = from.previous();
    }
    for (const RecordPlace& place : places_) {
      if (place.index != last.next()) return "entries are out of order";
      if (place.term < term || place.term > header.hard_state.term) return "an entry's term is out of order";
      last = place.index;
      term = place.term;
    }
    if (header.first_index != (places_.empty() ? Index{} : places_.front().index))
      return "first_index is not the first";
    if (header.last_index != last || header.last_term != term) return "last_index or last_term are not the last";
    return {};
  }

  std::string_view parse_records(const BlockHeader& header, std::string_view bytes) {
    std::size_t at = block_header_bytes;
    std::uint32_t crc = 0;
    for (std::uint32_t count = 0; count < header.records; ++count) {
      raft::Entry entry;
      const std::string_view rest = bytes.substr(at);
      if (raft::parse_record(nullptr, rest, options_.payload_bytes_max, entry) != raft::RecordState::whole) {
        return "a record's checksum does not hold";
      }
      crc = crc32c(rest.substr(0, 4), crc);
      places_.push_back(RecordPlace{entry.index, entry.term, end_offset_ + at});
      at += raft::record_bytes(entry);
    }
    if (at != bytes.size()) return "the records are not as long as the header says";
    if (crc != header.records_crc) return "the records are not those of the header";
    return {};
  }

  void accept(const BlockHeader& header, const Opened& in) {
    FLOTILLA_ASSERT(header.number == chain_.number + 1);
    chain_.idle = walked_ > 0 && header.records == 0 && !header.begins_anew && header.hard_state == chain_.hard_state &&
                  header.commit_index == chain_.commit_index;
    ++walked_;
    if (header.begins_anew) chain_.map.begin_anew(header.last_index, header.last_term);
    if (!places_.empty()) chain_.map.supersede(places_.front().index);
    for (const RecordPlace& place : places_) {
      chain_.map.add(place.index, place.term, in.segment.id, end_offset_, place.offset);
    }
    chain_.number = header.number;
    chain_.crc = header.crc;
    chain_.hard_state = header.hard_state;
    chain_.commit_index = header.commit_index;
    chain_.durable_through = std::max(chain_.durable_through, header.durable_through);
    chain_.unsynced.push_back(Chain::Place{header.number, in.segment.id, end_offset_, header.bytes});
    while (!chain_.unsynced.empty() && chain_.unsynced.front().number <= chain_.durable_through) {
      chain_.unsynced.pop_front();
    }

    end_offset_ += whole_sectors(header.bytes);
  }

  // Everything behind the end of the chain: zeros, the remains of a torn write, or proof that the chain was longer.
  Result<void> judge_rest() {
    std::size_t last_used = end_segment_;
    std::uint64_t durable_through = chain_.durable_through;
    for (std::size_t which = end_segment_; which < segments_.size(); ++which) {
      const Result<bool> zeros = scan(segments_[which], which == end_segment_ ? end_offset_ : 0, durable_through);
      if (!zeros) return fail(zeros.error());
      if (*zeros) continue;
      last_used = which;
      chain_.torn = true;
    }
    if (durable_through > chain_.number) return too_short(durable_through);
    chain_.durable_through = durable_through;
    // What was trimmed went only after this block was durable: no crash tears it.
    if (end_segment_ == 0 && end_offset_ == 0 && segments_.front().segment.id != 1) {
      return damage(segments_.front(), 0, broken_);
    }
    const bool nothing = chain_.number == 0 && !chain_.torn;
    const std::size_t live = end_offset_ > 0 ? end_segment_ + 1 : end_segment_;
    for (std::size_t which = 0; which < segments_.size(); ++which) {
      const SegmentFile segment = segments_[which].segment;
      if (nothing || which > last_used) {
        chain_.unused.push_back(segment);
      } else if (which >= live) {
        chain_.dead.push_back(segment);
      } else {
        chain_.segments.push_back(segment);
      }
    }
    chain_.end_offset = end_offset_;
    FLOTILLA_ASSERT(chain_.torn || nothing || last_used == end_segment_);
    FLOTILLA_ASSERT(chain_.torn || chain_.dead.empty());
    return {};
  }

  // True if there are only zeros from `offset` on. A header is believed even if its records are torn: it was written
  // after what it calls durable.
  Result<bool> scan(const Opened& in, std::uint64_t offset, std::uint64_t& durable_through) {
    bool zeros = true;
    Window window(*in.file, chunk_bytes);
    while (offset < in.segment.bytes) {
      Result<std::string_view> chunk = window.view(offset, chunk_bytes);
      if (!chunk) return fail(std::move(chunk.error()));
      if (chunk->empty()) break;
      if (!all_zero(*chunk)) {
        zeros = false;
        scan_chunk(in, offset, *chunk, durable_through);
      }
      offset += chunk->size();
    }
    return zeros;
  }

  void scan_chunk(const Opened& in, std::uint64_t offset, std::string_view chunk, std::uint64_t& durable_through) {
    FLOTILLA_ASSERT(offset % sector_bytes == 0);
    for (std::size_t at = 0; at < chunk.size(); at += sector_bytes) {
      BlockHeader header;
      if (parse_block_header(chunk.substr(at), header) != HeaderState::valid) continue;
      if (header.segment != in.segment.id || header.offset != offset + at) continue;
      if (chain_.stream == 0) chain_.stream = header.stream;
      if (header.stream == chain_.stream) durable_through = std::max(durable_through, header.durable_through);
    }
  }

  struct RecordPlace {
    Index index;
    Term term;
    std::uint64_t offset = 0;
  };

  FileSystem& files_;
  const LogOptions& options_;
  std::vector<Opened> segments_;
  Chain chain_;
  std::uint64_t walked_ = 0;
  std::size_t end_segment_ = 0;
  std::uint64_t end_offset_ = 0;
  std::string_view broken_;
  std::vector<RecordPlace> places_;  ///< the records of the block being looked at
};

}  // namespace

Result<std::vector<SegmentStart>> list_segments(FileSystem& files, const std::string& directory) {
  const Result<std::vector<std::string>> names = files.list(directory);
  if (!names) return fail(names.error());
  std::vector<SegmentStart> segments;
  for (const std::string& name : *names) {
    const std::optional<std::uint64_t> id = segment_id(name);
    if (!id) continue;
    const auto file = files.open(directory + "/" + name, FileSystem::Mode::read);
    if (!file && file.error() == Errc::not_found) continue;  // trimmed meanwhile
    if (!file) return fail(file.error());
    const Result<std::uint64_t> size = (*file)->size();
    if (!size) return fail(size.error());
    const Result<std::string> head = (*file)->read_at(0, block_header_bytes);
    if (!head) return fail(head.error());
    BlockHeader header;
    const bool valid = parse_block_header(*head, header) == HeaderState::valid;
    segments.push_back({{*id, *size}, valid ? std::optional(header) : std::nullopt});
  }
  return segments;
}

Result<Chain> walk(FileSystem& files, const LogOptions& options) {
  return Walker(files, options).run();
}

}  // namespace flotilla::log
