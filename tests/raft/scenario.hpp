// Scenarios: text commands to a cluster of cores, each followed by the expected trace. The language:
// scenarios/README.md.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "raft/cluster.hpp"

namespace flotilla::raft::testing {

/// Runs the commands of one scenario file and returns the file as it should be: every command with its actual trace.
class Scenario {
 public:
  /// Lines that begin with four spaces are trace and are ignored; '#' begins a comment line.
  std::string run(std::string_view file);

 private:
  using Words = std::vector<std::string>;

  void execute(const Words& words);
  bool execute_setup(const Words& words);
  bool execute_time(const Words& words);
  bool execute_disk(const Words& words);
  bool execute_network(const Words& words);
  bool execute_request(const Words& words);
  bool execute_snapshot(const Words& words);

  void make_cluster(const Words& words);
  void set_option(const Words& words);
  void set_log(const Words& words);
  void deliver(const Words& words, bool twice);
  void drop(const Words& words);
  bool selected(const Message& message, const Words& words, std::size_t from) const;
  void inject(const Words& words);
  void show_state(const Words& words);
  void show_log(const Words& words);
  void show_progress(const Words& words);
  void show_network();
  void change(const Words& words);

  void observe();
  void trace_ready(std::uint64_t id, const Ready& ready);
  void trace_roles();
  void say(std::string line);
  std::vector<std::uint64_t> everybody() const;

  std::unique_ptr<Cluster> cluster_;
  std::function<void(CoreOptions&)> adjust_;
  std::vector<std::function<void(CoreOptions&)>> adjustments_;
  std::uint64_t count_ = 0;
  bool quiet_ = false;
  std::string trace_;
};

/// One word per part, as in "append t2 after 3/1 [4/2 x] commit 3".
std::string to_text(const Message& message);

}  // namespace flotilla::raft::testing
