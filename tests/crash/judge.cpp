#include "judge.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include <fmt/format.h>

#include "base/codec.hpp"
#include "lmdb_file.hpp"
#include "recorder.hpp"

namespace crash {

using flotilla::Errc;
using flotilla::Index;
namespace log = flotilla::log;

namespace {

std::string read_whole(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  return std::string(std::istreambuf_iterator<char>(in), {});
}

std::string describe(const History::Log& log) {
  return fmt::format("{}..{} term {} vote {} commit {}", log.first, log.last(), log.hard_state.term.value,
                     log.hard_state.voted_for.value, log.commit_index);
}

bool same_entries(const History::Log& left, const History::Log& right) {
  const std::uint64_t from = std::max(left.first, right.first);
  if (left.last() != right.last() || left.last_term != right.last_term) return false;
  for (std::uint64_t i = from; i <= left.last(); ++i) {
    if (left.entries[i - left.first] != right.entries[i - right.first]) return false;
  }
  return true;
}

/// What is in the log that was found, read back through its own interface.
History::Log found_log(log::Log& from) {
  const log::Log::Recovered& recovered = from.recovered();
  History::Log found;
  found.first = recovered.first_index.value;
  found.last_term = recovered.last_term.value;
  found.hard_state = recovered.hard_state;
  found.commit_index = recovered.commit_index.value;
  for (Index next = recovered.first_index; next <= recovered.last_index;) {
    const auto entries = from.read(next, 1u << 20);
    if (!entries) throw std::runtime_error("the log cannot be read: " + entries.error().message());
    if (entries->empty()) throw std::runtime_error(fmt::format("the log lacks entry {}", next.value));
    next = entries->back().index.next();
    found.entries.insert(found.entries.end(), entries->begin(), entries->end());
  }
  if (found.last() != recovered.last_index.value) throw std::runtime_error("the log ends elsewhere than it says");
  return found;
}

/// A flaw in the newest block cannot be told from a torn write, unless a block behind it proves that it was durable.
bool in_newest_block(const Damage& damage, const Image& image, const History& history, std::uint64_t promised) {
  if (promised == 0) return false;
  const History::Block& last = history.block(promised);
  const std::uint64_t end = last.header.offset + log::whole_sectors(last.header.bytes);
  const bool hit =
      damage.inode == last.inode && damage.offset < end && damage.offset + damage.bytes > last.header.offset;
  if (!hit) return false;
  for (std::uint64_t later = promised + 1; later <= history.versions(); ++later) {
    const History::Block& block = history.block(later);
    for (const auto& [path, node] : image.nodes) {
      if (node.inode != block.inode || !node.content || node.content->size() < block.header.offset) continue;
      log::BlockHeader header;
      const std::string_view bytes = std::string_view(*node.content).substr(block.header.offset);
      if (parse_block_header(bytes.substr(0, log::block_header_bytes), header) == log::HeaderState::valid &&
          header.crc == block.header.crc) {
        return false;
      }
    }
  }
  return true;
}

class Judge {
 public:
  Judge(Member& member, const Image& image, const std::optional<Damage>& damage, Expectation& expected, Truth& truth)
      : member_(member), image_(image), damage_(damage), expected_(expected), truth_(truth) {}

  Verdict run(const std::filesystem::path& data_dir) {
    const std::uint64_t begun = expected_.history.versions();
    const std::uint64_t due = expected_.promised;
    find_base();
    if (!wrong_.empty()) return verdict(Ending::whole);
    const bool anew = base_ == 0;
    check_log();
    check_identity();
    check_state(data_dir);
    if (anew) return verdict(Ending::anew);
    if (member_.started().log->recovered().torn_tail) return verdict(Ending::cut);
    return verdict(base_ < begun && base_ >= due ? Ending::older : Ending::whole);
  }

 private:
  void complain(const std::string& what) {
    if (wrong_.empty()) wrong_ = what;
  }
  Verdict verdict(Ending ending) const { return {ending, wrong_}; }

  /// Which version was found: the blocks that the start itself wrote follow it.
  void find_base() {
    base_ = member_.started().log->recovered().blocks;
    History after = expected_.history;
    bool wrote = false;
    std::uint64_t newest = base_;
    for (const OperationPtr& operation : Recorder::operations()) {
      const auto written = after.take(*operation);
      if (!written) continue;
      newest = std::max(newest, written->number);
      if (written->anew) continue;
      const std::uint64_t before = written->number - 1;
      base_ = wrote ? std::min(base_, before) : before;
      wrote = true;
      const std::uint32_t previous = before == 0 ? 0 : after.block(before).header.crc;
      if (after.block(before + 1).header.previous_crc != previous) {
        complain("the log goes on after a block that was never written");
      }
    }
    if (!wrote && newest <= after.versions()) after.cut(newest);
    std::uint64_t least = expected_.promised;
    if (damage_ && least > 0 && in_newest_block(*damage_, image_, expected_.history, least)) --least;
    if (base_ > expected_.history.versions()) {
      return complain(
          fmt::format("block {} was found and only {} were ever written", base_, expected_.history.versions()));
    }
    before_ = expected_.history.at(base_);
    if (base_ < least) {
      return complain(fmt::format("version {} of the log was promised ({}), and {} is found ({})", expected_.promised,
                                  describe(expected_.history.at(expected_.promised)), base_, describe(before_)));
    }
    expected_.history = std::move(after);
    if (base_ >= expected_.promised) return;
    // What was told of the block that the damage took is told no more.
    expected_.promised = base_;
    expected_.acknowledged = std::min(expected_.acknowledged, before_.last());
  }

  void check_log() {
    const History::Log& found = found_ = found_log(*member_.started().log);
    const History::Log now = expected_.history.at(expected_.history.versions());
    const auto same = [](const History::Log& left, const History::Log& right) {
      return same_entries(left, right) && left.hard_state == right.hard_state &&
             left.commit_index == right.commit_index;
    };
    if (!same(found, now)) {
      return complain(fmt::format("the log is {}, but its blocks say {}", describe(found), describe(now)));
    }
    if (base_ == 0) {
      if (found.last() > 1) complain("a new log has entries: " + describe(found));
      return;
    }
    if (same(now, before_)) return;
    // The one thing that a start may change: the log begins after a snapshot that it does not hold.
    const auto fits = [&](const Expectation::Install& install) {
      return now.first == install.index + 1 && now.entries.empty() && now.last_term == install.term &&
             before_.term_at(install.index) != install.term && before_.commit_index <= install.index &&
             (now.hard_state == before_.hard_state ||
              (before_.hard_state.term.value < install.term && now.hard_state.term.value == install.term &&
               !now.hard_state.voted_for));
    };
    if (std::none_of(expected_.installing.begin(), expected_.installing.end(), fits)) {
      complain(fmt::format("the start turned the log {} into {}", describe(before_), describe(now)));
    }
  }

  void check_identity() {
    const std::uint64_t incarnation = member_.started().identity.incarnation;
    if (incarnation <= expected_.incarnation) {
      complain(fmt::format("incarnation {} was used before; now it is {}", expected_.incarnation, incarnation));
    }
  }

  void check_state(const std::filesystem::path& data_dir) {
    const std::uint64_t applied = member_.applied();
    const std::uint64_t last = found_.last();
    // A cluster of one has nothing in its log that is not committed. What a start itself may have applied is what the
    // log calls committed.
    truth_.cut(expected_.sole ? last : std::max(expected_.committed, found_.commit_index));
    const std::uint64_t committed = expected_.sole ? last : found_.commit_index;
    for (std::uint64_t i = truth_.last() + 1; i <= committed; ++i) {
      if (i < found_.first) return complain(fmt::format("entry {} is neither in the log nor in the state", i));
      truth_.add(found_.entries[i - found_.first]);
    }
    if (expected_.acknowledged > last) {
      complain(
          fmt::format("entry {} was acknowledged and is lost; the log ends with {}", expected_.acknowledged, last));
    }
    if (expected_.sole && applied < last) {
      complain(fmt::format("entry {} is in the log of a lone voter, and {} are applied", last, applied));
    }
    if (applied < expected_.installed) {
      complain(fmt::format("the snapshot as of {} was in force, and the state is at {}", expected_.installed, applied));
    }
    if (applied > truth_.last()) {
      return complain(fmt::format("entry {} is applied, and only {} are committed", applied, truth_.last()));
    }
    complain_if(check_contents(data_dir, truth_, applied));
  }
  void complain_if(const std::string& what) {
    if (!what.empty()) complain(what);
  }

  Member& member_;
  const Image& image_;
  const std::optional<Damage>& damage_;
  Expectation& expected_;
  Truth& truth_;
  std::uint64_t base_ = 0;
  History::Log before_;
  History::Log found_;
  std::string wrong_;
};

}  // namespace

const char* to_string(Ending ending) {
  switch (ending) {
    case Ending::whole: return "whole";
    case Ending::older: return "older";
    case Ending::cut: return "cut";
    case Ending::anew: return "anew";
    case Ending::refused: return "refused";
  }
  return "";
}

std::string check_contents(const std::filesystem::path& data_dir, const Truth& truth, std::uint64_t index) {
  const Tables tables = read_tables(read_whole(data_dir / "state" / "data.mdb"));
  std::uint64_t sum = 0;
  for (const auto& [name, part] : tables.sums) {
    if (name != "__flotilla") sum += part;
  }
  if (sum != truth.sum_at(index)) return fmt::format("the contents are not those after entry {}", index);
  const auto applied = tables.reserved.find("applied");
  if (applied == tables.reserved.end()) return "no row says what is applied";
  flotilla::Decoder in(applied->second);
  const std::uint64_t row_index = in.u64();
  const std::uint64_t row_term = in.u64();
  if (row_index != index) return fmt::format("the data file is at entry {}, the member says {}", row_index, index);
  if (index > 0 && row_term != truth.entry(index).term.value) {
    return fmt::format("entry {} was applied with term {}, and has {}", index, row_term, truth.entry(index).term.value);
  }
  return {};
}

Verdict judge(Member& member, const std::optional<flotilla::Error>& failure, const Image& image,
              const std::optional<Damage>& damage, Expectation& expected, Truth& truth,
              const std::filesystem::path& data_dir) {
  if (failure) {
    const bool says_why = *failure == Errc::damaged || *failure == Errc::version_unsupported;
    if (damage && says_why && !failure->message().empty()) return {Ending::refused, {}};
    return {Ending::refused, "it does not start: " + failure->message()};
  }
  try {
    return Judge(member, image, damage, expected, truth).run(data_dir);
  } catch (const std::exception& thrown) {
    return {Ending::whole, thrown.what()};
  }
}

}  // namespace crash
