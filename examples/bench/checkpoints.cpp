// What checkpoints cost those who write meanwhile: one member, 64 callers, with and without them in turn.
//
//   checkpoints [--seconds N] [--rounds N] [--directory DIR]
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <stdlib.h>

#include <fmt/format.h>

#include <flotilla/flotilla.hpp>
#include <flotilla/standard.hpp>
#include "measure.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flotilla;
using namespace flotilla::bench;

constexpr unsigned callers = 64;

struct Settings {
  std::chrono::seconds run{10};
  int rounds = 3;
  std::filesystem::path directory = std::filesystem::temp_directory_path();
};

struct Row {
  double rate = 0;
  double p50 = 0;
  double p99 = 0;
  double longest = 0;
  std::uint64_t grown = 0;           ///< bytes of the file
  std::uint64_t entries_behind = 0;  ///< the checkpoint, at the end
};

/// On the database as the rounds before left it: callers write to keys that mostly are there.
Result<Row> round(const std::filesystem::path& directory, const Settings& settings, bool with_checkpoints) {
  Options options;
  options.data_dir = directory;
  if (!with_checkpoints) {
    options.checkpoint_log_bytes = std::size_t{1} << 40;
    options.checkpoint_growth_bytes = std::size_t{1} << 40;
    options.checkpoint_interval = std::chrono::hours(24);
  }
  auto db = DB::open(options, standard_commands());
  if (!db) return fail(db.error());
  const std::uint64_t before = db->status().state_bytes;
  const auto latencies = call(*db, callers, std::string(100, 'v'), settings.run);
  if (!latencies) return fail(latencies.error());
  const Status status = db->status();
  Row row;
  row.rate = static_cast<double>(latencies->size()) / std::chrono::duration<double>(settings.run).count();
  row.p50 = microseconds(percentile(*latencies, 0.5));
  row.p99 = microseconds(percentile(*latencies, 0.99));
  row.longest = microseconds(percentile(*latencies, 1));
  row.grown = status.state_bytes - before;
  row.entries_behind = status.applied_index.value - status.checkpoint_index.value;
  return row;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.at(values.size() / 2);
}

bool compare(const std::filesystem::path& directory, const Settings& settings) {
  fmt::print("{} callers, 100 B values, one member, {} s a row, in {}\n", callers, settings.run.count(),
             settings.directory.string());
  fmt::print("{:<12} {:>11} {:>10} {:>10} {:>10} {:>12} {:>14}\n", "checkpoints", "commands/s", "p50 us", "p99 us",
             "max us", "grown MB", "behind at end");
  std::vector<double> p99[2];
  std::vector<double> rates[2];
  for (int i = 0; i < 2 * settings.rounds; ++i) {
    const bool with = i % 2 == 0;
    const auto row = round(directory, settings, with);
    if (!row) {
      fmt::print(stderr, "checkpoints: {}\n", row.error().message());
      return false;
    }
    fmt::print("{:<12} {:>11.0f} {:>10.0f} {:>10.0f} {:>10.0f} {:>12.0f} {:>14}\n", with ? "with" : "without",
               row->rate, row->p50, row->p99, row->longest, static_cast<double>(row->grown) / 1e6, row->entries_behind);
    std::fflush(stdout);
    p99[with].push_back(row->p99);
    rates[with].push_back(row->rate);
  }
  fmt::print("with / without, medians: p99 {:.2f}, commands/s {:.2f}\n", median(p99[1]) / median(p99[0]),
             median(rates[1]) / median(rates[0]));
  return true;
}

std::optional<Settings> parse(int count, char** words) {
  Settings settings;
  for (int at = 1; at + 1 < count; at += 2) {
    const std::string_view word = words[at];
    if (word == "--seconds") {
      settings.run = std::chrono::seconds(std::strtoll(words[at + 1], nullptr, 10));
    } else if (word == "--rounds") {
      settings.rounds = static_cast<int>(std::strtol(words[at + 1], nullptr, 10));
    } else if (word == "--directory") {
      settings.directory = words[at + 1];
    } else {
      return std::nullopt;
    }
  }
  if (count % 2 == 0 || settings.run <= 0s || settings.rounds <= 0) return std::nullopt;
  return settings;
}

}  // namespace

int main(int count, char** words) {
  const auto settings = parse(count, words);
  if (!settings) {
    fmt::print(stderr, "usage: checkpoints [--seconds N] [--rounds N] [--directory DIR]\n");
    return 2;
  }
  std::string directory = (settings->directory / "flotilla-checkpoints-XXXXXX").string();
  if (::mkdtemp(directory.data()) == nullptr) {
    fmt::print(stderr, "checkpoints: {} cannot be made\n", directory);
    return 1;
  }
  const bool done = compare(std::filesystem::path(directory) / "data", *settings);
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  return done ? 0 : 1;
}
