// What a recording means: the blocks that were written to the log one after the other, and what was promised meanwhile.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "disk.hpp"
#include "log/format.hpp"
#include "raft/entry.hpp"

namespace crash {

/// The stream of blocks. Version n is the log after n blocks.
class History {
 public:
  struct Block {
    flotilla::log::BlockHeader header;
    std::vector<flotilla::raft::Entry> entries;
    InodeId inode = 0;
  };
  struct Log {
    std::uint64_t first = 1;  ///< of entries
    std::vector<flotilla::raft::Entry> entries;
    std::uint64_t last_term = 0;
    flotilla::raft::HardState hard_state;
    std::uint64_t commit_index = 0;

    std::uint64_t last() const { return first + entries.size() - 1; }
    std::optional<std::uint64_t> term_at(std::uint64_t index) const;
  };

  struct Written {
    std::uint64_t number = 0;
    bool anew = false;  ///< it was there before, byte for byte
  };
  /// nullopt: it does not write a block.
  std::optional<Written> take(const Operation& operation);
  std::uint64_t versions() const { return blocks_.size(); }
  /// Forgets all after version n.
  void cut(std::uint64_t version) { blocks_.resize(version); }
  /// Of version n, from 1.
  const Block& block(std::uint64_t version) const { return blocks_.at(version - 1); }
  Log at(std::uint64_t version) const;
  /// The first version that has an entry of this index. nullopt: none has.
  std::optional<std::uint64_t> first_with(std::uint64_t index) const;

 private:
  bool take_rest(const Operation& operation);
  static void parse_entries(Block& block, const std::string& bytes);

  std::vector<Block> blocks_;
  std::string unfinished_;  // of a block whose first write was short
};

/// What a start after a crash has to find.
struct Expectation {
  History history;
  std::uint64_t promised = 0;      ///< version
  std::uint64_t acknowledged = 0;  ///< index of a command that was told to have succeeded
  std::uint64_t committed = 0;     ///< index
  std::uint64_t incarnation = 0;   ///< of the newest start that came back
  struct Install {
    std::uint64_t index = 0;
    std::uint64_t term = 0;
  };
  std::vector<Install> installing;
  std::uint64_t installed = 0;  ///< index
  /// A cluster of one: all that is in its log is committed.
  bool sole = false;
  /// A planted fault: what was written is promised before it is synced.
  bool answers_early = false;
  std::uint64_t newest_since_starting = 0;  ///< block

  /// The next operation. One that is in flight counts as begun, never as done.
  void take(const Operation& operation, bool in_flight = false);
};

}  // namespace crash
