// One run of a workload, as it was recorded; kept beside a failing image, so that the image can be made again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "disk.hpp"
#include "model.hpp"
#include "recorder.hpp"

namespace crash {

struct Recording {
  std::string workload;
  std::uint64_t seed = 0;
  bool sole = false;
  std::vector<OperationPtr> operations;
  Truth truth;
  std::string failure;  ///< why the run ended before its end
  bool struck = false;  ///< the fault did

  void write_to(const std::filesystem::path& file) const;
  static Recording read_from(const std::filesystem::path& file);
};

/// What goes wrong on purpose.
struct Planted {
  std::string ignored_syncs = {};  ///< see Recorder::ignore_syncs
  bool answer_early = false;       ///< promises are made before the sync
  bool state_first = false;        ///< see MemberOptions
  IoFault fault = {};              ///< a call that fails; the run may end with it
};

/// Runs `workload` in `root`, which it makes, and records it.
Recording record(const std::string& workload, std::uint64_t seed, const std::filesystem::path& root,
                 const Planted& planted);

/// One line.
std::string describe(const Operation& operation);

}  // namespace crash
