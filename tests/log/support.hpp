// What the log's tests share: entries, a vector as the reference, and looks into its blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/assert.hpp"
#include "log/faulty_file.hpp"
#include "log/format.hpp"
#include "log/log.hpp"
#include "log/log_map.hpp"
#include "log/memory_file.hpp"

#include <doctest/doctest.h>

namespace flotilla::log::test {

inline raft::Entry entry(std::uint64_t index, std::uint64_t term, std::string payload = "") {
  raft::Entry made;
  made.index = Index{index};
  made.term = Term{term};
  made.type = raft::EntryType::command;
  made.time = 1'000'000 + index;
  made.payload = SharedBytes(std::move(payload));
  raft::seal(made);
  return made;
}

/// Entries [first, last], each with a payload that names it.
inline std::vector<raft::Entry> entries(std::uint64_t first, std::uint64_t last, std::uint64_t term,
                                        std::size_t payload_bytes = 20) {
  std::vector<raft::Entry> made;
  for (std::uint64_t index = first; index <= last; ++index) {
    std::string payload = std::to_string(index) + "@" + std::to_string(term) + " ";
    payload.resize(payload_bytes, static_cast<char>('a' + index % 26));
    made.push_back(entry(index, term, payload));
  }
  return made;
}

inline raft::HardState vote(std::uint64_t term, std::uint64_t voted_for = 0) {
  return raft::HardState{Term{term}, NodeId{voted_for}};
}

/// Small, deterministic.
inline LogOptions small_options(std::size_t segment_bytes = 4096) {
  LogOptions options;
  options.directory = "log";
  options.segment_bytes = segment_bytes;
  options.payload_bytes_max = 1u << 20;
  options.prepare_ahead = false;
  options.stream_id = 0x1234567890abcdef;
  return options;
}

inline Result<void> append(Log& log, const std::vector<raft::Entry>& what,
                           std::optional<raft::HardState> hard_state = std::nullopt, std::uint64_t commit = 0) {
  const Log::Write write{hard_state, what, Index{commit}};
  return log.append({&write, 1});
}

inline std::vector<raft::Entry> read_all(Log& log) {
  std::vector<raft::Entry> all;
  while (log.first_index() + all.size() <= log.last_index()) {
    Result<std::vector<raft::Entry>> some = log.read(log.first_index() + all.size(), 1000);
    if (!some) MESSAGE(some.error().message());
    REQUIRE(some.has_value());
    REQUIRE_FALSE(some->empty());
    all.insert(all.end(), some->begin(), some->end());
  }
  return all;
}

inline std::unique_ptr<Log> must_open(FileSystem& files, const LogOptions& options) {
  Result<std::unique_ptr<Log>> log = Log::open(files, options);
  if (!log) MESSAGE(log.error().message());
  REQUIRE(log.has_value());
  return std::move(*log);
}

/// The log as it should be: a vector.
struct Model {
  std::uint64_t first = 1;
  std::vector<raft::Entry> held;
  raft::HardState hard_state;
  std::uint64_t commit = 0;

  std::uint64_t last() const { return first + held.size() - 1; }
  void put(const std::vector<raft::Entry>& what) {
    for (const raft::Entry& one : what) {
      if (one.index.value < first) {
        first = one.index.value;
        held.clear();
      }
      held.resize(one.index.value - first);
      held.push_back(one);
    }
  }
  /// The log forgot everything below `index`.
  void forget_below(std::uint64_t index) {
    if (index <= first) return;
    held.erase(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(index - first));
    first = index;
  }
};

inline void check_same(Log& log, const Model& model) {
  REQUIRE(log.first_index().value == model.first);
  REQUIRE(log.last_index().value == model.last());
  REQUIRE(read_all(log) == model.held);
  for (const raft::Entry& one : model.held) REQUIRE(log.term_at(one.index).value() == one.term);
}

inline std::string segment_path(std::uint64_t id) {
  return "log/" + segment_name(id);
}

/// The blocks of one segment, as their headers say, up to the first place without one.
inline std::vector<BlockHeader> blocks_of(const std::string& segment) {
  std::vector<BlockHeader> blocks;
  BlockHeader header;
  std::size_t at = 0;
  while (at < segment.size() &&
         parse_block_header(std::string_view(segment).substr(at), header) == HeaderState::valid) {
    blocks.push_back(header);
    at += whole_sectors(header.bytes);
  }
  return blocks;
}

inline std::vector<std::string> segment_paths(FileSystem& files) {
  std::vector<std::string> paths;
  const std::vector<std::string> names = files.list("log").value();
  for (const std::string& name : names) {
    if (segment_id(name)) paths.push_back("log/" + name);
  }
  return paths;
}

/// Every file of the directory, to see that nothing was changed.
inline std::vector<std::pair<std::string, std::string>> image_of(MemoryFileSystem& files) {
  std::vector<std::pair<std::string, std::string>> image;
  const std::vector<std::string> names = files.list("log").value();
  for (const std::string& name : names) image.emplace_back(name, files.contents("log/" + name));
  return image;
}

}  // namespace flotilla::log::test
