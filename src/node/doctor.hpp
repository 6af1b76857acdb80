// What a data directory holds and what a start of its member would do, without changing anything in it.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "flotilla/error.hpp"
#include "flotilla/types.hpp"
#include "log/identity.hpp"
#include "log/log.hpp"
#include "log/recovery.hpp"
#include "state/checkpoint.hpp"
#include "state/content.hpp"

namespace flotilla::node {

struct Examination {
  /// A part of the directory that a start would refuse, and its reason.
  struct Problem {
    std::string_view part;  ///< "directory", "identity", "log", "checkpoint", "database"
    Error error;
  };
  struct TornTail {
    std::string segment;  ///< its name
    std::uint64_t offset = 0;
  };

  std::filesystem::path directory;
  /// A member has it open, in process `holder`. What follows is a moment of a member that goes on, and neither the log
  /// nor the content is verified.
  bool live = false;
  pid_t holder = 0;
  /// Held meanwhile, so that no member could start. Neither live nor locked: there is no data/LOCK, so one could.
  bool locked = false;

  std::optional<log::Identity> identity;
  std::vector<log::SegmentStart> segments;
  std::optional<log::Log::Recovered> log;  ///< of a log that is whole up to its last durable block
  std::optional<TornTail> torn_tail;
  std::string database;                ///< "state.N", where data/state leads
  std::vector<std::string> leftovers;  ///< of interruptions, removed by a start
  std::optional<state::Checkpoint> checkpoint;
  std::optional<state::Content> content;  ///< as of the checkpoint; of a live member: of now

  std::vector<std::string> start;  ///< what a start does, in its order; of a live member nothing
  std::vector<Problem> problems;

  bool sound() const { return problems.empty(); }
};

struct ExamineOptions {
  bool content = true;  ///< read and verify the whole database
};

/// Reads everything and writes nothing. Holds data/LOCK, shared, while it works: no member starts meanwhile, and others
/// may examine too. Takes as long as reading the log and, with `content`, the database; no disk.
[[nodiscard]] Examination examine(const std::filesystem::path& data_dir, const ExamineOptions& options);

}  // namespace flotilla::node
