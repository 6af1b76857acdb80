// A catalogd process that the demo and the process tests start, kill and start again.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include <sys/types.h>

#include "flotilla/error.hpp"
#include "flotilla/types.hpp"

namespace catalog {

/// A TCP port of the loopback address that nobody listens on just now.
flotilla::Result<flotilla::Address> free_loopback_address();

struct MemberOptions {
  std::filesystem::path program;    ///< catalogd
  std::filesystem::path directory;  ///< of this member: its data and its log
  flotilla::Address listen;
  flotilla::Address join;  ///< empty: it founds
  std::vector<std::string> more_arguments;
};

/// Owns one child at a time; destroying it kills the child and waits for it. The child dies with its parent.
class MemberProcess {
 public:
  explicit MemberProcess(MemberOptions options) : options_(std::move(options)) {}
  ~MemberProcess() { kill(); }
  MemberProcess(MemberProcess&& other) noexcept;
  MemberProcess& operator=(MemberProcess&&) = delete;

  /// Starts it and waits until it serves. io_error, timeout; the message has the end of the child's own words.
  flotilla::Result<void> start(std::chrono::milliseconds deadline = std::chrono::seconds(20));
  /// SIGKILL, then waits until the system has taken its files and its port back. No effect without a child.
  void kill();
  /// SIGTERM, then waits: the exit status; io_error if it was killed by a signal.
  flotilla::Result<int> stop();
  bool running() const noexcept { return pid_ > 0; }
  pid_t pid() const noexcept { return pid_; }
  const flotilla::Address& address() const noexcept { return options_.listen; }
  /// The last lines that it wrote to standard error, over all its runs.
  std::string last_words() const;

 private:
  flotilla::Result<void> spawn(int ready_pipe);

  MemberOptions options_;
  pid_t pid_ = -1;
};

}  // namespace catalog
