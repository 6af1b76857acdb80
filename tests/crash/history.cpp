#include "history.hpp"

#include <algorithm>
#include <memory>

#include "base/assert.hpp"

namespace crash {

namespace log = flotilla::log;
namespace raft = flotilla::raft;

namespace {
constexpr std::size_t payload_bytes_max = 64u << 20;
}

std::optional<std::uint64_t> History::Log::term_at(std::uint64_t index) const {
  if (index < first || index > last()) return std::nullopt;
  return entries[index - first].term.value;
}

void History::parse_entries(Block& block, const std::string& bytes) {
  const auto owner = std::make_shared<const std::string>(bytes);
  std::string_view rest = *owner;
  rest.remove_prefix(log::block_header_bytes);
  block.entries.clear();
  while (block.entries.size() < block.header.records) {
    raft::Entry entry;
    if (raft::parse_record(owner, rest, payload_bytes_max, entry) != raft::RecordState::whole) return;
    rest.remove_prefix(raft::record_bytes(entry));
    block.entries.push_back(std::move(entry));
  }
}

/// What a short write left is written by the next one.
bool History::take_rest(const Operation& operation) {
  if (unfinished_.empty() || blocks_.empty()) return false;
  Block& block = blocks_.back();
  if (operation.inode != block.inode || operation.offset != block.header.offset + unfinished_.size()) return false;
  unfinished_ += operation.bytes;
  parse_entries(block, unfinished_);
  if (unfinished_.size() >= log::whole_sectors(block.header.bytes)) unfinished_.clear();
  return true;
}

std::optional<History::Written> History::take(const Operation& operation) {
  if (operation.kind != Operation::Kind::write || take_rest(operation)) return std::nullopt;
  if (operation.offset % sector_bytes != 0 || operation.bytes.size() < log::block_header_bytes) return std::nullopt;
  Block block;
  if (log::parse_block_header(operation.bytes, block.header) != log::HeaderState::valid) return std::nullopt;
  if (block.header.offset != operation.offset) return std::nullopt;
  const log::BlockHeader& header = block.header;
  const bool known = header.number <= blocks_.size() && blocks_[header.number - 1].header.crc == header.crc;
  if (known) return Written{header.number, true};
  FLOTILLA_ASSERT(header.number > 0 && header.number <= blocks_.size() + 1);
  block.inode = operation.inode;
  parse_entries(block, operation.bytes);
  unfinished_ = operation.bytes.size() < log::whole_sectors(header.bytes) ? operation.bytes : std::string();
  blocks_.resize(header.number - 1);
  blocks_.push_back(std::move(block));
  return Written{blocks_.size(), false};
}

History::Log History::at(std::uint64_t version) const {
  Log log;
  for (std::uint64_t i = 0; i < version; ++i) {
    const Block& block = blocks_[i];
    const log::BlockHeader& header = block.header;
    if (header.begins_anew) {
      log.first = header.last_index.value + 1;
      log.entries.clear();
    }
    if (!block.entries.empty()) {
      const std::uint64_t from = block.entries.front().index.value;
      FLOTILLA_ASSERT(from >= log.first && from <= log.last() + 1);
      log.entries.resize(from - log.first);
      log.entries.insert(log.entries.end(), block.entries.begin(), block.entries.end());
    }
    log.last_term = header.last_term.value;
    log.hard_state = header.hard_state;
    log.commit_index = header.commit_index.value;
  }
  return log;
}

std::optional<std::uint64_t> History::first_with(std::uint64_t index) const {
  for (std::uint64_t i = 0; i < blocks_.size(); ++i) {
    if (blocks_[i].header.last_index.value >= index) return i + 1;
  }
  return std::nullopt;
}

void Expectation::take(const Operation& operation, bool in_flight) {
  const auto block = history.take(operation);
  if (block) newest_since_starting = block->number;
  if (block && answers_early && !in_flight) promised = history.versions();
  if (operation.kind != Operation::Kind::mark || in_flight) return;
  switch (operation.mark) {
    case MarkKind::starting: newest_since_starting = 0; break;
    case MarkKind::started:
      incarnation = operation.value;
      // What was under way when the run before ended may be lost.
      history.cut(std::min(history.versions(), std::max(operation.second, newest_since_starting)));
      promised = history.versions();
      break;
    case MarkKind::promised: promised = history.versions(); break;
    case MarkKind::acknowledged:
      acknowledged = std::max(acknowledged, operation.value);
      if (const auto version = history.first_with(operation.value)) promised = std::max(promised, *version);
      break;
    case MarkKind::committed: committed = std::max(committed, operation.value); break;
    case MarkKind::installing: installing.push_back({operation.value, operation.second}); break;
    case MarkKind::installed: installed = std::max(installed, operation.value); break;
  }
}

}  // namespace crash
