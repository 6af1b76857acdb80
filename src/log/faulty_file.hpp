// A file system whose N-th call fails. For tests and the simulator.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "log/file.hpp"

namespace flotilla::log {

/// Every call that can fail is counted, in every file of it too: 0, 1, 2, ... Thread: any, but the fault is set while
/// nobody calls.
class FaultyFileSystem final : public FileSystem {
 public:
  struct Fault {
    std::uint64_t at = ~std::uint64_t{0};  ///< the number of the call that fails
    bool from_then_on = false;             ///< and all after it, as if the process had been killed there
    Errc error = Errc::io_error;           ///< disk_full: of the first call from there on that takes space
    /// Half of a failing write is done, in whole bytes; a failing sync, rename or removal is done.
    bool partly = false;
  };

  /// Requires: `inner` lives longer.
  explicit FaultyFileSystem(FileSystem& inner) : inner_(inner) {}

  /// From now on, counting from 0 again.
  void set_fault(const Fault& fault);
  std::uint64_t calls() const { return calls_; }
  /// Whether the fault struck.
  bool struck() const { return struck_; }

  Result<std::unique_ptr<File>> open(const std::string& path, Mode mode) override;
  Result<void> rename(const std::string& from, const std::string& to) override;
  Result<void> remove(const std::string& path) override;
  Result<void> sync_directory(const std::string& directory) override;
  Result<void> make_directory(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& directory) override;
  Result<bool> exists(const std::string& path) override;

 private:
  class Handle;
  enum class Verdict : std::uint8_t { passes, fails, fails_partly };

  Verdict count_call(bool takes_space);
  tl::unexpected<Error> error_of(const char* call, const std::string& path) const;
  template <class Call>
  auto guard(const char* name, const std::string& path, Call call, bool takes_space = false) -> decltype(call());

  FileSystem& inner_;
  Fault fault_;
  std::atomic<std::uint64_t> calls_{0};
  std::atomic<bool> struck_{false};
};

}  // namespace flotilla::log
