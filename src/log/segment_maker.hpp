// Makes segments: files of zeros, complete and durable under their name before the first block goes into them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "flotilla/error.hpp"
#include "log/file.hpp"

namespace flotilla::log {

struct Segment {
  std::uint64_t id = 0;
  std::uint64_t bytes = 0;
  std::unique_ptr<File> file;
};

/// Ids are handed out without gaps, and a segment appears under its name only after the one before it: so a gap among
/// the names is always damage. Thread: the log's owner; it has one of its own if `ahead`.
class SegmentMaker {
 public:
  /// The next segment gets id `next`; `ready` is it, if it exists already.
  SegmentMaker(FileSystem& files, std::string directory, std::uint64_t segment_bytes, bool ahead, std::uint64_t next,
               std::optional<Segment> ready);
  ~SegmentMaker() = default;  ///< waits for the thread, which stops at its next slice

  /// The next segment will be needed soon. Returns at once. No effect without `ahead`, or if it was said before.
  void want();
  /// The next segment. One that is ready costs nothing; otherwise it is made on the spot, small if the thread could
  /// make a full one next time. disk_full: there is none, and it may be asked for again.
  Result<Segment> take();
  /// Disk space of what is ready and not taken.
  std::uint64_t bytes_ready() const;

 private:
  enum class Stage : std::uint8_t { idle, wanted, naming, ready };

  void run(const std::stop_token& stop);
  void make_ahead(const std::stop_token& stop);
  Result<Segment> make_now();
  Result<std::unique_ptr<File>> write_zeros(const std::string& path, std::uint64_t bytes, const std::stop_token& stop);
  Result<void> put_in_place(const std::string& temporary, std::uint64_t id);

  FileSystem& files_;
  const std::string directory_;
  const std::uint64_t segment_bytes_;
  const bool ahead_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  Stage stage_ = Stage::idle;
  bool making_now_ = false;  ///< the owner is naming `next_ - 1`: the thread must not name a later one before it
  std::uint64_t next_;
  std::optional<Segment> ready_;
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace flotilla::log
