// What the log costs over the bare disk: groups of small entries through Log::append, next to pwrite and fdatasync of
// the same sizes into a file of zeros. On the disk of TMPDIR.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <sys/uio.h>

#include "log/format.hpp"
#include "log/log.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace flotilla;

constexpr std::size_t payload_bytes = 130;

template <class T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().message().c_str());
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
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

std::size_t group_bytes(std::size_t entries) {
  return log::whole_sectors(log::block_header_bytes + entries * (raft::record_header_bytes + payload_bytes));
}

class Times {
 public:
  template <class Call>
  void add(Call call) {
    const auto begin = std::chrono::steady_clock::now();
    call();
    seconds_.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    sum_ += seconds_.back();
  }
  double sum() const { return sum_; }
  double median() {
    const auto middle = seconds_.begin() + static_cast<std::ptrdiff_t>(seconds_.size() / 2);
    std::nth_element(seconds_.begin(), middle, seconds_.end());
    return *middle;
  }

 private:
  std::vector<double> seconds_;
  double sum_ = 0;
};

/// Groups of so many entries. The times are the log's; disk_p50 is the median of the same without the log. The two take
/// turns, so that both meet the same disk.
void log_append(benchmark::State& state) {
  constexpr int turn = 50;
  const auto entries = static_cast<std::size_t>(state.range(0));
  const test::TempDir dir;
  std::filesystem::create_directory(dir / "log");
  Raw raw(dir / "raw");
  Groups groups(dir / "log");
  const std::string image(group_bytes(entries), 'x');
  Times raw_times;
  Times log_times;
  while (state.KeepRunningBatch(turn)) {
    const double before = log_times.sum();
    for (int i = 0; i < turn; ++i) raw_times.add([&] { raw.append(image); });
    for (int i = 0; i < turn; ++i) {
      groups.append(entries);
      log_times.add([&] { groups.write(); });
    }
    groups.trim();
    state.SetIterationTime(log_times.sum() - before);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
  state.counters["log_p50"] = log_times.median();
  state.counters["disk_p50"] = raw_times.median();
  state.counters["ratio"] = log_times.median() / raw_times.median();
}
BENCHMARK(log_append)->Arg(1)->Arg(16)->Arg(64)->Arg(256)->UseManualTime()->MinTime(2);

}  // namespace
