// What the log costs over the bare disk: groups of small entries through Log::append, next to a loop of pwrite and
// fdatasync of the same sizes into a zero-written file. The two take turns, so that both meet the same disk.
//   log_bench DIRECTORY [SECONDS]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <sys/uio.h>

#include "log/format.hpp"
#include "log/log.hpp"

namespace {

using namespace flotilla;
using Clock = std::chrono::steady_clock;

constexpr std::size_t payload_bytes = 130;
constexpr int turn_groups = 50;

template <class T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().message().c_str());
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

struct Times {
  std::vector<double> microseconds;

  double rate() const {
    double sum = 0;
    for (const double one : microseconds) sum += one;
    return static_cast<double>(microseconds.size()) / sum * 1e6;
  }
  double at(double part) {
    std::sort(microseconds.begin(), microseconds.end());
    return microseconds[static_cast<std::size_t>(part * static_cast<double>(microseconds.size() - 1))];
  }
};

template <class Call>
void timed(Times& times, Call call) {
  const Clock::time_point begin = Clock::now();
  call();
  times.microseconds.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
}

/// The bare disk: a file of zeros, overwritten from front to back, again and again.
class Raw {
 public:
  explicit Raw(const std::string& path) {
    log::FileSystem& files = log::posix_file_system();
    file_ = must(files.open(path, log::FileSystem::Mode::create));
    const std::string zeros(1 << 20, '\0');
    for (std::uint64_t at = 0; at < file_bytes; at += zeros.size()) write(at, zeros);
  }
  void append(std::string_view bytes) {
    if (offset_ + bytes.size() > file_bytes) offset_ = 0;
    write(offset_, bytes);
    offset_ += bytes.size();
  }

 private:
  static constexpr std::uint64_t file_bytes = 64u << 20;
  void write(std::uint64_t at, std::string_view bytes) {
    const iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    must(file_->write_at(at, &part, 1));
    must(file_->sync());
  }
  std::unique_ptr<log::File> file_;
  std::uint64_t offset_ = 0;
};

class Groups {
 public:
  explicit Groups(const std::string& directory) {
    log::LogOptions options;
    options.directory = directory;
    log_ = must(log::Log::open(log::posix_file_system(), options));
  }
  void append(std::size_t count) {
    entries_.resize(count);
    for (raft::Entry& entry : entries_) {
      entry.index = Index{++last_};
      entry.term = Term{1};
      entry.type = raft::EntryType::command;
      entry.payload = payload_;
      raft::seal(entry);
    }
  }
  void write() {
    const log::Log::Write write{raft::HardState{Term{1}, NodeId{1}}, entries_, Index{last_ - entries_.size()}};
    must(log_->append({&write, 1}));
  }
  void trim() { must(log_->trim(Index{last_})); }

 private:
  std::unique_ptr<log::Log> log_;
  std::vector<raft::Entry> entries_;
  SharedBytes payload_{std::string(payload_bytes, 'x')};
  std::uint64_t last_ = 0;
};

void compare(const std::string& directory, std::size_t count, std::chrono::duration<double> time) {
  const std::size_t bytes =
      log::whole_sectors(log::block_header_bytes + count * (raft::record_header_bytes + payload_bytes));
  const std::string path = directory + "/log_bench";
  std::filesystem::remove_all(path);
  std::filesystem::create_directory(path);
  Raw raw(path + "/raw");
  Groups groups(path + "/log");
  const std::string image(bytes, 'x');
  Times raw_times;
  Times log_times;
  const Clock::time_point end = Clock::now() + std::chrono::duration_cast<Clock::duration>(time);
  while (Clock::now() < end) {
    for (int turn = 0; turn < turn_groups; ++turn) timed(raw_times, [&] { raw.append(image); });
    for (int turn = 0; turn < turn_groups; ++turn) {
      groups.append(count);
      timed(log_times, [&] { groups.write(); });
    }
    groups.trim();
  }
  std::printf(
      "%4zu entries %7zu B  log %7.0f groups/s p50 %6.0f us p99 %7.0f us   raw %7.0f groups/s p50 %6.0f us p99 %7.0f us"
      "   ratio p50 %.3f mean %.3f\n",
      count, bytes, log_times.rate(), log_times.at(0.5), log_times.at(0.99), raw_times.rate(), raw_times.at(0.5),
      raw_times.at(0.99), log_times.at(0.5) / raw_times.at(0.5), raw_times.rate() / log_times.rate());
  std::fflush(stdout);
  std::filesystem::remove_all(path);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    std::fprintf(stderr, "usage: log_bench DIRECTORY [SECONDS per size]\n");
    return 2;
  }
  const double seconds = count > 2 ? std::atof(arguments[2]) : 5;
  for (const std::size_t entries : {1u, 16u, 64u, 256u})
    compare(arguments[1], entries, std::chrono::duration<double>(seconds));
}
