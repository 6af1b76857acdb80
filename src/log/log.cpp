#include "log/log.hpp"

#include <algorithm>
#include <chrono>
#include <deque>
#include <random>
#include <utility>

#include <sys/uio.h>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "base/codec.hpp"
#include "base/crc32c.hpp"
#include "base/histogram.hpp"
#include "log/format.hpp"
#include "log/log_map.hpp"
#include "log/recovery.hpp"
#include "log/segment_maker.hpp"
#include "log/window.hpp"

namespace flotilla::log {
namespace {

// Payloads from here on are written from where they lie; smaller ones are cheaper to copy next to their header.
constexpr std::size_t gather_bytes_min = 4096;
constexpr std::size_t buffer_bytes_kept = 1u << 20;
constexpr std::size_t read_bytes_min = 64u << 10;
constexpr std::size_t read_bytes_max = 1u << 20;

std::uint64_t draw_stream_id() {
  std::random_device device;
  const std::uint64_t high = device();
  return (high << 32) | device() | 1;  // never 0
}

/// The bytes of one block, gathered from a buffer of our own and from the entries' payloads.
class BlockImage {
 public:
  void build(BlockHeader& header, std::span<const raft::Entry* const> entries) {
    bytes_.clear();
    if (bytes_.capacity() > buffer_bytes_kept) bytes_.shrink_to_fit();
    bytes_.reserve(copied_bytes(entries));
    parts_.clear();
    bytes_.append(block_header_bytes, '\0');
    std::size_t begun = 0;
    std::uint64_t total = block_header_bytes;
    for (const raft::Entry* const entry : entries) {
      char* const record = grow(raft::record_header_bytes);
      raft::put_record_header(record, *entry);
      header.records_crc = crc32c({record, 4}, header.records_crc);
      total += raft::record_bytes(*entry);
      const std::string_view payload = entry->payload.view();
      if (payload.size() < gather_bytes_min) {
        bytes_.append(payload);
        continue;
      }
      part(bytes_.data() + begun, bytes_.size() - begun);
      part(payload.data(), payload.size());
      begun = bytes_.size();
    }
    FLOTILLA_ASSERT(total == header.bytes);
    bytes_.append(whole_sectors(total) - total, '\0');
    part(bytes_.data() + begun, bytes_.size() - begun);
    put_block_header(bytes_.data(), header);
  }

  const std::vector<iovec>& parts() const { return parts_; }

 private:
  static std::size_t copied_bytes(std::span<const raft::Entry* const> entries) {
    std::size_t bytes = block_header_bytes + sector_bytes;
    for (const raft::Entry* const entry : entries) {
      const std::size_t payload = entry->payload.size();
      bytes += raft::record_header_bytes + (payload < gather_bytes_min ? payload : 0);
    }
    return bytes;
  }
  // Never moves: build() reserved all of it, and parts_ points into it.
  char* grow(std::size_t count) {
    FLOTILLA_ASSERT(bytes_.size() + count <= bytes_.capacity());
    bytes_.append(count, '\0');
    return bytes_.data() + bytes_.size() - count;
  }
  void part(const char* data, std::size_t size) {
    if (size > 0) parts_.push_back(iovec{const_cast<char*>(data), size});
  }

  std::string bytes_;
  std::vector<iovec> parts_;
};

std::uint64_t block_bytes(std::span<const raft::Entry* const> entries) {
  std::uint64_t bytes = block_header_bytes;
  for (const raft::Entry* const entry : entries) bytes += raft::record_bytes(*entry);
  return bytes;
}

}  // namespace

struct Log::Impl {
  Impl(FileSystem& file_system, LogOptions log_options, Chain chain)
      : files(file_system),
        options(std::move(log_options)),
        stream(chain.stream),
        number(chain.number),
        durable(chain.number),  // see sync_tail()
        crc(chain.crc),
        hard_state(chain.hard_state),
        commit_index(chain.commit_index),
        map(std::move(chain.map)),
        segments(std::move(chain.segments)) {
    if (stream == 0) stream = options.stream_id != 0 ? options.stream_id : draw_stream_id();
  }

  // Opening.
  Result<void> settle(const Chain& chain);
  Result<void> remove_temporaries();
  Result<void> sync_tail(const Chain& chain);
  Result<void> prepare_segments(const Chain& chain);
  Result<void> remove_newest_first(std::span<const SegmentFile> doomed);

  // Writing.
  void gather(std::span<const Write> group);
  void take_hard_state(const raft::HardState& state);
  void take_entry(const raft::Entry& entry);
  Result<void> append_gathered();
  std::size_t fitting(std::size_t from) const;
  Result<void> write_block(std::span<const raft::Entry* const> block, std::optional<std::pair<Index, Term>> anew);
  BlockHeader next_header(std::span<const raft::Entry* const> block, std::optional<std::pair<Index, Term>> anew) const;
  Result<void> make_room(std::uint64_t bytes);
  Result<void> roll();
  Result<void> sync_active();
  Result<void> sync();

  void remember(const BlockHeader& header, std::span<const raft::Entry* const> block);

  // Reading.
  Result<File*> file_of(std::uint64_t segment);
  Result<BlockHeader> header_at(Window& window, std::uint64_t segment, std::uint64_t offset) const;
  struct Reading {
    Index wanted;
    std::size_t bytes_max = 0;
    std::size_t bytes = 0;
    bool full = false;
    std::vector<raft::Entry> entries;
  };
  Result<void> read_run(const Mark& mark, Reading& reading);
  Result<raft::Entry> record_at(Window& window, std::uint64_t segment, std::uint64_t offset) const;
  bool take_read(raft::Entry entry, Reading& reading) const;

  Result<void> trim(Index first);

  Error damage(std::uint64_t segment, std::uint64_t at, std::string_view found) const {
    return Error(Errc::damaged, fmt::format("{} at {}: {}", path_of(segment), at, found));
  }
  std::string path_of(std::uint64_t segment) const { return options.directory + "/" + segment_name(segment); }

  /// Runs one call. After an error, or an exception out of the middle of it, the log does nothing any more: what it
  /// remembers and what is on disk may differ. Not so where the disk was full: no sync says that, and what was written
  /// of a block is nothing yet.
  template <class Call>
  auto run(Call call) -> decltype(call()) {
    if (failure) return fail(*failure);
    failure.emplace(Errc::stopped, "a call to the log was interrupted");
    auto result = call();
    if (result || result.error() == Errc::disk_full) {
      failure.reset();
    } else {
      failure = result.error();
    }
    return result;
  }

  FileSystem& files;
  LogOptions options;

  // The end of the stream. Every block up to `durable` is durable.
  std::uint64_t stream;
  std::uint64_t number;
  std::uint64_t durable;
  std::uint32_t crc;
  raft::HardState hard_state;
  Index commit_index;
  LogMap map;

  std::deque<SegmentFile> segments;  ///< oldest to newest; the last is the one being written, open as `active`
  std::unique_ptr<File> active;
  std::uint64_t offset = 0;
  bool next_wanted = false;  ///< the maker was told; once per segment, or a full disk would be tried at each append
  std::optional<SegmentMaker> maker;

  // The group being written; kept for its memory.
  raft::HardState next_hard_state;
  Index next_commit_index;
  std::vector<const raft::Entry*> entries;
  std::size_t appended = 0;  ///< of them
  BlockImage image;

  using Clock = std::chrono::steady_clock;  // what is measured decides nothing
  Histogram write_time, sync_time;

  std::unique_ptr<File> reading;
  std::uint64_t reading_segment = 0;

  std::optional<Error> failure;
};

// Opening. Up to here nothing was changed. Each step leaves a state that recovery finds as it found this one.

Result<void> Log::Impl::settle(const Chain& chain) {
  if (Result<void> done = remove_temporaries(); !done) return done;
  if (Result<void> done = sync_tail(chain); !done) return done;
  if (Result<void> done = prepare_segments(chain); !done) return done;
  // From now on damage in what was just recovered can be told from a torn tail. After a cut the block also says, in the
  // new segment, which block it follows: the remains behind that one are dead for good.
  const bool unprotected = !chain.unsynced.empty() && !chain.idle;
  // A new log gets its first block now: later a log without any block has lost what it held.
  const bool created = chain.number == 0;
  if (!chain.torn && !unprotected && !created) return {};
  next_hard_state = hard_state;
  next_commit_index = commit_index;
  entries.clear();
  appended = 0;
  return append_gathered();
}

Result<void> Log::Impl::remove_temporaries() {
  Result<std::vector<std::string>> names = files.list(options.directory);
  if (!names) return fail(std::move(names.error()));
  for (const std::string& name : *names) {
    if (!name.ends_with(".tmp")) continue;
    if (Result<void> done = files.remove(options.directory + "/" + name); !done) return done;
  }
  // Also for names that a killed process left visible but not durable.
  return files.sync_directory(options.directory);
}

// What was read may be in the page cache alone: of a process that was killed before its sync, or whose sync failed (the
// kernel then calls the pages clean, and a sync of ours would say nothing). So the same bytes are written again.
Result<void> Log::Impl::sync_tail(const Chain& chain) {
  for (std::size_t i = 0; i < chain.unsynced.size(); ++i) {
    const Chain::Place& place = chain.unsynced[i];
    Result<File*> file = file_of(place.segment);
    if (!file) return fail(std::move(file.error()));
    Result<std::string> bytes = (*file)->read_at(place.offset, whole_sectors(place.bytes));
    if (!bytes) return fail(std::move(bytes.error()));
    BlockHeader header;
    if (parse_block_header(*bytes, header) != HeaderState::valid || header.number != place.number) {
      return fail(damage(place.segment, place.offset, "the block changed while it was read"));
    }
    const iovec part{bytes->data(), bytes->size()};
    if (Result<void> done = (*file)->write_at(place.offset, &part, 1); !done) return done;
    const bool more_of_it = i + 1 < chain.unsynced.size() && chain.unsynced[i + 1].segment == place.segment;
    if (more_of_it) continue;
    if (Result<void> done = (*file)->sync(); !done) return done;
  }
  return {};
}

// From the back and one by one, so that a crash leaves no gap among the names.
Result<void> Log::Impl::remove_newest_first(std::span<const SegmentFile> doomed) {
  for (; !doomed.empty(); doomed = doomed.first(doomed.size() - 1)) {
    if (Result<void> done = files.remove(path_of(doomed.back().id)); !done) return done;
    if (Result<void> done = files.sync_directory(options.directory); !done) return done;
  }
  return {};
}

Result<void> Log::Impl::prepare_segments(const Chain& chain) {
  // A dead segment must not stay: once a trim removes those before it, the log would seem to begin with it. It goes
  // before anything is written behind it, so those of zeros go first.
  const std::size_t kept = chain.dead.empty() && !chain.unused.empty() ? 1 : 0;
  if (Result<void> done = remove_newest_first(std::span(chain.unused).subspan(kept)); !done) return done;
  if (Result<void> done = remove_newest_first(chain.dead); !done) return done;
  std::optional<Segment> ready;
  std::uint64_t next = segments.empty() ? 1 : segments.back().id + 1;
  if (kept > 0) {
    const SegmentFile& unused = chain.unused.front();
    FLOTILLA_ASSERT(segments.empty() || unused.id == next);
    next = unused.id;
    Result<std::unique_ptr<File>> file = files.open(path_of(unused.id), FileSystem::Mode::open);
    if (!file) return fail(std::move(file.error()));
    ready = Segment{unused.id, unused.bytes, std::move(*file)};
  }
  maker.emplace(files, options.directory, options.segment_bytes, options.prepare_ahead, next, std::move(ready));
  if (chain.torn || segments.empty()) return roll();
  Result<std::unique_ptr<File>> file = files.open(path_of(segments.back().id), FileSystem::Mode::open);
  if (!file) return fail(std::move(file.error()));
  active = std::move(*file);
  offset = chain.end_offset;
  return {};
}

// Writing.

void Log::Impl::take_hard_state(const raft::HardState& state) {
  FLOTILLA_ASSERT(state.term >= next_hard_state.term);
  FLOTILLA_ASSERT(state.term > next_hard_state.term || !next_hard_state.voted_for ||
                  state.voted_for == next_hard_state.voted_for);
  next_hard_state = state;
}

void Log::Impl::take_entry(const raft::Entry& entry) {
  FLOTILLA_ASSERT(entry.index > commit_index);
  FLOTILLA_ASSERT(raft::record_crc(entry) == entry.crc);
  FLOTILLA_ASSERT(entry.payload.size() <= options.payload_bytes_max);
  while (!entries.empty() && entries.back()->index >= entry.index) entries.pop_back();
  if (entries.empty()) {
    FLOTILLA_ASSERT(entry.index <= map.last_index().next());
    const bool after_known = entry.index > map.first_index();
    FLOTILLA_ASSERT(!after_known || map.term_at(entry.index.previous()) <= entry.term);
  } else {
    FLOTILLA_ASSERT(entry.index == entries.back()->index.next());
    FLOTILLA_ASSERT(entry.term >= entries.back()->term);
  }
  entries.push_back(&entry);
}

// A supersession inside the group is resolved here: nobody was told of the entries that it replaces.
void Log::Impl::gather(std::span<const Write> group) {
  next_hard_state = hard_state;
  next_commit_index = commit_index;
  entries.clear();
  appended = 0;
  for (const Write& write : group) {
    if (write.hard_state) take_hard_state(*write.hard_state);
    for (const raft::Entry& entry : write.entries) take_entry(entry);
    next_commit_index = std::max(next_commit_index, write.commit_index);
  }
  FLOTILLA_ASSERT(entries.empty() || entries.back()->term <= next_hard_state.term);
}

// One block for all of it, unless no segment holds so much.
Result<void> Log::Impl::append_gathered() {
  do {
    const std::size_t count = fitting(appended);
    if (Result<void> done = write_block(std::span(entries).subspan(appended, count), std::nullopt); !done) return done;
    appended += count;
  } while (appended < entries.size());
  return {};
}

// How many entries from `from` on go into the next block: all, or as many as a whole segment holds, at least one.
std::size_t Log::Impl::fitting(std::size_t from) const {
  const std::uint64_t room =
      std::max(options.segment_bytes, segments.back().bytes - std::min(offset, segments.back().bytes));
  std::uint64_t bytes = block_header_bytes;
  std::size_t count = 0;
  for (; from + count < entries.size(); ++count) {
    bytes += raft::record_bytes(*entries[from + count]);
    if (count > 0 && bytes > room) break;
  }
  return count;
}

BlockHeader Log::Impl::next_header(std::span<const raft::Entry* const> block,
                                   std::optional<std::pair<Index, Term>> anew) const {
  BlockHeader header;
  header.begins_anew = anew.has_value();
  header.stream = stream;
  header.segment = segments.back().id;
  header.offset = offset;
  header.number = number + 1;
  header.bytes = block_bytes(block);
  header.records = static_cast<std::uint32_t>(block.size());
  header.previous_crc = crc;
  header.durable_through = durable;

  header.first_index = block.empty() ? Index{} : block.front()->index;
  header.last_index = map.last_index();
  header.last_term = map.last_term();
  if (!block.empty()) header.last_index = block.back()->index;
  if (!block.empty()) header.last_term = block.back()->term;
  if (anew) std::tie(header.last_index, header.last_term) = *anew;
  header.hard_state = next_hard_state;
  header.commit_index = std::min(next_commit_index, header.last_index);
  FLOTILLA_ASSERT(header.commit_index >= commit_index);
  return header;
}

// Where each group is synced, a block is written only after every block before it is durable, so `durable_through` is
// the block before.
Result<void> Log::Impl::write_block(std::span<const raft::Entry* const> block,
                                    std::optional<std::pair<Index, Term>> anew) {
  if (Result<void> done = make_room(whole_sectors(block_bytes(block))); !done) return done;
  const Clock::time_point begun = Clock::now();
  BlockHeader header = next_header(block, anew);
  image.build(header, block);
  const std::vector<iovec>& parts = image.parts();
  if (Result<void> done = active->write_at(offset, parts.data(), static_cast<int>(parts.size())); !done) return done;
  write_time.add(Clock::now() - begun);
  const bool durably = options.sync_each_group || anew;
  if (durably) {
    if (Result<void> done = sync_active(); !done) return done;
  }
  remember(header, block);
  if (durably) durable = number;
  return {};
}

Result<void> Log::Impl::sync_active() {
  const Clock::time_point begun = Clock::now();
  auto done = active->sync();
  sync_time.add(Clock::now() - begun);
  return done;
}

Result<void> Log::Impl::sync() {
  if (durable == number) return {};
  if (Result<void> done = sync_active(); !done) return done;
  durable = number;
  return {};
}

Result<void> Log::Impl::make_room(std::uint64_t bytes) {
  const std::uint64_t capacity = segments.back().bytes;
  // A block too large for any segment gets one of its own, which grows to its size.
  if (offset == 0 || (offset <= capacity && bytes <= capacity - offset)) {
    // Not earlier: a database that is never written much needs no second segment.
    if (offset + bytes > capacity / 4 && !next_wanted) maker->want();
    next_wanted = offset + bytes > capacity / 4;
    return {};
  }
  return roll();
}

Result<void> Log::Impl::roll() {
  if (Result<void> done = sync(); !done) return done;  // this segment's file is let go
  Result<Segment> segment = maker->take();
  if (!segment) return fail(std::move(segment.error()));
  FLOTILLA_ASSERT(segments.empty() || segment->id == segments.back().id + 1);
  segments.push_back(SegmentFile{segment->id, segment->bytes});
  active = std::move(segment->file);
  offset = 0;
  next_wanted = false;
  return {};
}

void Log::Impl::remember(const BlockHeader& header, std::span<const raft::Entry* const> block) {
  if (header.begins_anew) map.begin_anew(header.last_index, header.last_term);
  if (!block.empty()) map.supersede(block.front()->index);
  std::uint64_t record = offset + block_header_bytes;
  for (const raft::Entry* const entry : block) {
    map.add(entry->index, entry->term, segments.back().id, offset, record);
    record += raft::record_bytes(*entry);
  }
  FLOTILLA_ASSERT(record == offset + header.bytes);
  FLOTILLA_ASSERT(map.last_index() == header.last_index);
  number = header.number;
  crc = header.crc;
  hard_state = header.hard_state;
  commit_index = header.commit_index;
  offset += whole_sectors(header.bytes);
  segments.back().bytes = std::max(segments.back().bytes, offset);
}

// Reading.

Result<File*> Log::Impl::file_of(std::uint64_t segment) {
  if (active && segment == segments.back().id) return active.get();
  if (!reading || reading_segment != segment) {
    Result<std::unique_ptr<File>> file = files.open(path_of(segment), FileSystem::Mode::open);
    if (!file && file.error() == Errc::not_found) return fail(damage(segment, 0, "the segment has vanished"));
    if (!file) return fail(std::move(file.error()));
    reading = std::move(*file);
    reading_segment = segment;
  }
  return reading.get();
}

Result<BlockHeader> Log::Impl::header_at(Window& window, std::uint64_t segment, std::uint64_t at) const {
  Result<std::string_view> bytes = window.view(at, block_header_bytes);
  if (!bytes) return fail(std::move(bytes.error()));
  BlockHeader header;
  const bool right = parse_block_header(*bytes, header) == HeaderState::valid && header.stream == stream &&
                     header.segment == segment && header.offset == at && header.bytes >= block_header_bytes;
  if (!right) return fail(damage(segment, at, "no block of this log, where one was written"));
  return header;
}

Result<raft::Entry> Log::Impl::record_at(Window& window, std::uint64_t segment, std::uint64_t at) const {
  Result<std::string_view> head = window.view(at, raft::record_header_bytes);
  if (!head) return fail(std::move(head.error()));
  if (head->size() < raft::record_header_bytes) return fail(damage(segment, at, "the file ends before a record"));
  const std::size_t payload = get_fixed<std::uint32_t>(head->data() + 4);
  if (payload > options.payload_bytes_max) return fail(damage(segment, at, "a record is too long"));
  Result<std::string_view> bytes = window.view(at, raft::record_header_bytes + payload);
  if (!bytes) return fail(std::move(bytes.error()));
  raft::Entry entry;
  if (raft::parse_record(window.owner(), *bytes, options.payload_bytes_max, entry) != raft::RecordState::whole) {
    return fail(damage(segment, at, "a record's checksum does not hold"));
  }
  return entry;
}

// False: it is one too many.
bool Log::Impl::take_read(raft::Entry entry, Reading& into) const {
  if (entry.index < into.wanted) return true;
  const std::size_t bytes = raft::record_bytes(entry);
  if (!into.entries.empty() && into.bytes + bytes > into.bytes_max) return false;
  FLOTILLA_ASSERT(entry.index == into.wanted);
  into.bytes += bytes;
  into.entries.push_back(std::move(entry));
  ++into.wanted;
  return true;
}

Result<void> Log::Impl::read_run(const Mark& mark, Reading& into) {
  Result<File*> file = file_of(mark.segment);
  if (!file) return fail(std::move(file.error()));
  Window window(**file, std::clamp(into.bytes_max, read_bytes_min, read_bytes_max));
  Result<BlockHeader> header = header_at(window, mark.segment, mark.block);
  if (!header) return fail(std::move(header.error()));
  std::uint64_t at = mark.record;
  const Index reach = map.reach_of(mark);
  for (Index index = mark.first; index <= reach; ++index) {
    while (at == header->offset + header->bytes) {
      const std::uint64_t next = header->offset + whole_sectors(header->bytes);
      header = header_at(window, mark.segment, next);
      if (!header) return fail(std::move(header.error()));
      at = next + block_header_bytes;
    }
    Result<raft::Entry> entry = record_at(window, mark.segment, at);
    if (!entry) return fail(std::move(entry.error()));
    if (entry->index != index || entry->term != map.term_at(index)) {
      return fail(damage(mark.segment, at, "another entry than was written there"));
    }
    at += raft::record_bytes(*entry);
    if (!take_read(std::move(*entry), into)) {
      into.full = true;
      return {};
    }
  }
  return {};
}

// One by one and in order: a hole among the segments would be damage. What stays begins with a block that a loss of
// power cannot take: the term and vote are in it.
Result<void> Log::Impl::trim(Index first) {
  const std::size_t kept = offset == 0 ? 2 : 1;
  while (segments.size() > kept) {
    const std::uint64_t oldest = segments.front().id;
    const std::optional<Index> newest = map.newest_in_front(oldest);
    if (newest && *newest >= first) return {};
    if (Result<void> done = sync(); !done) return done;
    if (reading_segment == oldest) reading.reset();
    if (Result<void> done = files.remove(path_of(oldest)); !done) return done;
    if (Result<void> done = files.sync_directory(options.directory); !done) return done;
    map.drop_front(oldest);
    segments.pop_front();
  }
  return {};
}

// The class.

Log::Log(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Log::~Log() = default;

Result<std::unique_ptr<Log>> Log::open(FileSystem& files, const LogOptions& given) {
  LogOptions options = given;
  options.segment_bytes = whole_sectors(std::max<std::size_t>(options.segment_bytes, sector_bytes));
  if (Result<void> done = files.make_directory(options.directory); !done) return fail(std::move(done.error()));
  if (Result<void> done = files.sync_directory(directory_of(options.directory)); !done) {
    return fail(std::move(done.error()));
  }
  Result<Chain> chain = walk(files, options);
  if (!chain) return fail(std::move(chain.error()));
  std::unique_ptr<Log> log = read_only(files, options, *chain);
  if (Result<void> done = log->impl_->settle(*chain); !done) return fail(std::move(done.error()));
  return log;
}

std::unique_ptr<Log> Log::read_only(FileSystem& files, const LogOptions& options, const Chain& chain) {
  std::unique_ptr<Log> log(new Log(std::make_unique<Impl>(files, options, chain)));
  log->recovered_ = Recovered{.hard_state = chain.hard_state,
                              .commit_index = chain.commit_index,
                              .first_index = chain.map.first_index(),
                              .last_index = chain.map.last_index(),
                              .last_term = chain.map.last_term(),
                              .torn_tail = chain.torn,
                              .blocks = chain.number};
  return log;
}

Result<void> Log::sync() {
  return impl_->run([&] { return impl_->sync(); });
}

Result<void> Log::append(std::span<const Write> group) {
  return impl_->run([&]() -> Result<void> {
    if (impl_->appended < impl_->entries.size())
      return fail(Errc::disk_full, "what was appended before waits for space");
    impl_->gather(group);
    return impl_->append_gathered();
  });
}

Result<void> Log::resume() {
  return impl_->run([&] { return impl_->append_gathered(); });
}

Result<void> Log::begin_anew(Index last, Term last_term) {
  return impl_->run([&] {
    FLOTILLA_ASSERT(last >= impl_->commit_index);
    impl_->next_hard_state = impl_->hard_state;
    impl_->next_commit_index = last;
    return impl_->write_block({}, std::pair(last, last_term));
  });
}

Result<std::vector<raft::Entry>> Log::read(Index first, std::size_t bytes_max) {
  if (impl_->failure) return fail(*impl_->failure);
  if (first < impl_->map.first_index()) return fail(Errc::not_found, fmt::format("entry {} was trimmed", first.value));
  Impl::Reading reading{.wanted = first, .bytes_max = bytes_max};
  while (!reading.full && reading.wanted <= impl_->map.last_index()) {
    const Mark mark = impl_->map.mark_at(reading.wanted);
    if (Result<void> done = impl_->run([&] { return impl_->read_run(mark, reading); }); !done) {
      return fail(std::move(done.error()));
    }
  }
  return std::move(reading.entries);
}

Result<Term> Log::term_at(Index index) {
  if (impl_->failure) return fail(*impl_->failure);
  if (index < impl_->map.first_index() || index > impl_->map.last_index()) {
    return fail(Errc::not_found, fmt::format("entry {} is not in the log", index.value));
  }
  return impl_->map.term_at(index);
}

Index Log::first_index() const {
  return impl_->map.first_index();
}

Index Log::last_index() const {
  return impl_->map.last_index();
}

Distribution Log::write_times() const {
  return impl_->write_time.distribution();
}

Distribution Log::sync_times() const {
  return impl_->sync_time.distribution();
}

std::uint64_t Log::bytes() const {
  std::uint64_t sum = impl_->maker->bytes_ready();
  for (const SegmentFile& segment : impl_->segments) sum += segment.bytes;
  return sum;
}

Result<void> Log::trim(Index first) {
  return impl_->run([&] { return impl_->trim(first); });
}

}  // namespace flotilla::log
