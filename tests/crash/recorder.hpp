// Everything that this process does to the files below one directory, in one order.
//
// The executable defines the system's calls itself and hands them on, so liblmdb and the standard library come through
// here too. What LMDB writes through its memory map (the lock file alone, without MDB_WRITEMAP) is no durable state and
// is not seen. Calls are made one at a time: what a sync covers is then never in doubt.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "disk.hpp"

namespace crash {

/// One call, and perhaps all that follow, fails.
struct IoFault {
  enum class Kind : std::uint8_t { error, part };  ///< part: a write or read does only some of it, once
  std::uint64_t at = ~std::uint64_t{0};            ///< which call, from 0
  int code = 0;
  bool from_then_on = false;
  Kind kind = Kind::error;
};

class Recorder {
 public:
  /// `root` exists and shows what `disk` shows.
  static void begin(const std::filesystem::path& root, Disk disk);
  /// Nothing is recorded any more; what was is kept.
  static void end();
  static const std::vector<OperationPtr>& operations();
  static void mark(MarkKind kind, std::uint64_t value = 0, std::uint64_t second = 0);

  static void set_fault(const IoFault& fault);
  /// Calls so far that could have failed.
  static std::uint64_t calls();
  static bool struck();
  /// A planted fault: syncs of files or directories of this name (at the time) are left out; "*" stands for any
  /// characters. An O_DSYNC descriptor of the name is then none.
  static void ignore_syncs(const std::string& pattern);
};

}  // namespace crash
