// Whether there is room for more commands: asked of the file system now and then, so that they are refused while the
// log and the database still can be written; and what to do once they cannot.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/executor.hpp"
#include "flotilla/error.hpp"
#include "state/store.hpp"

namespace flotilla::node {

/// Thread: loop.
class Space {
 public:
  struct Limits {
    std::filesystem::path directory;
    std::uint64_t reserve_bytes = 0;    ///< of the disk; 0: it is not asked
    std::uint64_t state_bytes_max = 0;  ///< of the database file; 0: as the disk allows
  };
  /// The file system is asked on `executor`: it may let one wait.
  Space(Loop& loop, Executor& executor, const state::Store& store, Limits limits);

  void tick();
  /// What writes waits for space (disk_full), or no more.
  enum class Writer : std::uint8_t { log, state };
  void set_full(Writer writer, const std::optional<Error>& why);
  /// One waits, and it is time that it tries again.
  bool retry_due();
  /// Why commands are refused for now: disk_full. Nullopt: they are not.
  const std::optional<Error>& refusal() const;

 private:
  static std::optional<Error> look(const state::Store& store, const Limits& limits);

  Loop& loop_;
  Executor& executor_;
  const state::Store& store_;
  const Limits limits_;
  std::optional<Error> refusal_;
  std::array<std::optional<Error>, 2> full_;  ///< by writer
  Duration retried_at_{};
  Duration retry_pause_{};
  Duration asked_at_{};
  bool asking_ = false;
  const std::shared_ptr<char> alive_ = std::make_shared<char>();
};

}  // namespace flotilla::node
