#include "log/segment_maker.hpp"

#include <algorithm>
#include <utility>

#include <sys/uio.h>

#include "base/assert.hpp"
#include "log/format.hpp"

namespace flotilla::log {
namespace {

// A sync in every slice: one large burst of dirty pages would stall the log's own syncs.
constexpr std::uint64_t slice_bytes = 1u << 20;
// A segment that somebody waits for is no larger than this.
constexpr std::uint64_t made_now_bytes_max = 4u << 20;

}  // namespace

SegmentMaker::SegmentMaker(FileSystem& files, std::string directory, std::uint64_t segment_bytes, bool ahead,
                           std::uint64_t next, std::optional<Segment> ready)
    : files_(files),
      directory_(std::move(directory)),
      segment_bytes_(segment_bytes),
      ahead_(ahead),
      next_(next),
      ready_(std::move(ready)) {
  FLOTILLA_ASSERT(segment_bytes_ % sector_bytes == 0);
  FLOTILLA_ASSERT(!ready_ || ready_->id == next_);
  stage_ = ready_ ? Stage::ready : Stage::idle;
  if (ahead_) thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

std::uint64_t SegmentMaker::bytes_ready() const {
  const std::lock_guard lock(mutex_);
  return ready_ ? ready_->bytes : 0;
}

void SegmentMaker::want() {
  const std::lock_guard lock(mutex_);
  if (stage_ != Stage::idle) return;
  stage_ = Stage::wanted;
  changed_.notify_all();
}

Result<Segment> SegmentMaker::take() {
  {
    std::unique_lock lock(mutex_);
    // A rename and a directory sync: shorter than making another.
    changed_.wait(lock, [&] { return stage_ != Stage::naming; });
    if (stage_ == Stage::ready) {
      Segment segment = std::move(*ready_);
      ready_.reset();
      FLOTILLA_ASSERT(segment.id == next_);
      ++next_;
      stage_ = Stage::idle;
      return segment;
    }
    making_now_ = true;
  }
  Result<Segment> segment = make_now();
  const std::lock_guard lock(mutex_);
  making_now_ = false;
  if (segment) ++next_;
  changed_.notify_all();
  return segment;
}

Result<Segment> SegmentMaker::make_now() {
  const std::uint64_t bytes = ahead_ ? std::min(segment_bytes_, made_now_bytes_max) : segment_bytes_;
  const std::string temporary = directory_ + "/now.tmp";
  Result<std::unique_ptr<File>> file = write_zeros(temporary, bytes, {});
  if (!file) {
    static_cast<void>(files_.remove(temporary));  // its space may be what is missing
    return fail(std::move(file.error()));
  }
  // Only take() changes next_, and the thread names nothing while making_now_ is set.
  const std::uint64_t id = next_;
  if (Result<void> placed = put_in_place(temporary, id); !placed) {
    if (placed.error() == Errc::disk_full) static_cast<void>(files_.remove(temporary));
    return fail(std::move(placed.error()));
  }
  return Segment{id, bytes, std::move(*file)};
}

void SegmentMaker::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [&] { return stage_ == Stage::wanted; })) return;
    }
    try {
      make_ahead(stop);
    } catch (...) {
      // No memory, or a broken invariant: the log's owner meets it too, where it can be reported.
      const std::lock_guard lock(mutex_);
      stage_ = Stage::idle;
      changed_.notify_all();
    }
  }
}

void SegmentMaker::make_ahead(const std::stop_token& stop) {
  const std::string temporary = directory_ + "/ahead.tmp";
  Result<std::unique_ptr<File>> file = write_zeros(temporary, segment_bytes_, stop);
  std::unique_lock lock(mutex_);
  if (!changed_.wait(lock, stop, [&] { return !making_now_; })) return;
  if (!file) {
    static_cast<void>(files_.remove(temporary));  // its space may be what is missing
    // Not an error yet: the log still has room. It will meet the same one itself when it has none.
    stage_ = Stage::idle;
    return;
  }
  stage_ = Stage::naming;
  const std::uint64_t id = next_;
  lock.unlock();
  const Result<void> placed = put_in_place(temporary, id);
  lock.lock();
  FLOTILLA_ASSERT(id == next_);
  stage_ = placed ? Stage::ready : Stage::idle;
  if (placed) ready_ = Segment{id, segment_bytes_, std::move(*file)};
  changed_.notify_all();
}

Result<std::unique_ptr<File>> SegmentMaker::write_zeros(const std::string& path, std::uint64_t bytes,
                                                        const std::stop_token& stop) {
  if (Result<void> removed = files_.remove(path); !removed && !(removed.error() == Errc::not_found)) {
    return fail(std::move(removed.error()));
  }
  Result<std::unique_ptr<File>> file = files_.open(path, FileSystem::Mode::create);
  if (!file) return file;
  if (Result<void> done = (*file)->allocate(bytes); !done) return fail(std::move(done.error()));
  const std::string zeros(std::min(bytes, slice_bytes), '\0');
  for (std::uint64_t at = 0; at < bytes; at += zeros.size()) {
    if (stop.stop_requested()) return fail(Errc::shutting_down, "the log was closed");
    const iovec part{const_cast<char*>(zeros.data()), std::min<std::uint64_t>(zeros.size(), bytes - at)};
    if (Result<void> done = (*file)->write_at(at, &part, 1); !done) return fail(std::move(done.error()));
    if (Result<void> done = (*file)->sync(); !done) return fail(std::move(done.error()));
  }
  return file;
}

Result<void> SegmentMaker::put_in_place(const std::string& temporary, std::uint64_t id) {
  if (Result<void> done = files_.rename(temporary, directory_ + "/" + segment_name(id)); !done) return done;
  return files_.sync_directory(directory_);
}

}  // namespace flotilla::log
