// One simulated member: the real node, log, store, mux, links and codec, on virtual threads, a lossy disk and a
// simulated network.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "disk_log.hpp"
#include "flotilla/db.hpp"
#include "history.hpp"
#include "log/faulty_file.hpp"
#include "log/memory_file.hpp"
#include "net/mux.hpp"
#include "node/node.hpp"
#include "node/start.hpp"
#include "oracle.hpp"
#include "support/sim_loop.hpp"
#include "support/sim_transport.hpp"

namespace flotilla::sim {

struct MemberOptions {
  std::string host;                 ///< "10.0.0.1"
  std::filesystem::path directory;  ///< for what is on the real file system: LMDB
  bool found = false;
  std::vector<Address> join;
  double clock_rate = 1;
  Duration disk_delay{};  ///< longest random wait before a log write begins
  Duration apply_delay{};
  Duration apply_interval = std::chrono::milliseconds(5);
  std::uint64_t trailing_entries = 16'384;
  std::uint64_t checkpoint_bytes = 64u << 20;  ///< of log, and of growth
  Duration checkpoint_interval = std::chrono::seconds(30);

  std::size_t log_cache_bytes = 64u << 20;
  bool verbose = false;  ///< print the member's log lines
};

class SimMember final : public Disk {
 public:
  SimMember(test::SimScheduler& scheduler, test::SimNetwork& network, History& history, Oracle& oracle,
            MemberOptions options);
  ~SimMember() override;

  /// An error is what DB::open would have returned.
  Result<void> start();
  using Survives = std::function<bool()>;
  /// Power loss: what was not synced survives or not, as `survives` says. Also of one whose start failed.
  void lose_power(const Survives& survives);
  /// The process dies; what it handed to the system stays.
  void kill();
  /// As DB::close() does it.
  void close();

  /// One of its next file calls fails, from now on, whether it runs or not.
  void break_files(const log::FaultyFileSystem::Fault& fault) { faulty_->set_fault(fault); }
  void mend_files() { faulty_->set_fault({}); }
  bool files_struck() const { return faulty_->struck(); }
  /// As a kernel does that drops what it could not sync, and calls it clean.
  void drop_unsynced() { files_->forget_unsynced(); }

  // Damage to the disk of a member that does not run.
  /// Keeps a copy of all that is durable, to go back to.
  void take_image();
  bool has_image() const { return image_ != nullptr; }
  Index image_configuration_index() const { return image_configuration_index_; }
  /// The copy is what the disk holds now. Nobody is told.
  void set_back();
  /// Flips a bit of the log, but for its last group, or of the file that says who it is.
  void rot();
  /// Flips a bit of the last group that holds entries, whatever is written behind it.
  void rot_newest_entries();
  /// An empty disk, and so somebody else.
  void wipe(std::vector<Address> join);
  void pause(Duration until);
  void pause_disk(Duration until);
  void pause_apply(Duration until);
  void pause_copies(Duration until);

  bool running() const { return running_ != nullptr; }
  /// What its disk held when its run ended.
  const DiskLog& disk() const { return disk_; }
  const std::string& host() const { return options_.host; }
  Address address() const { return options_.host + ":7000"; }
  NodeId id() const { return id_; }
  /// Requires: running().
  const raft::Core& core() const { return running_->node->core(); }
  bool is_loop(const void* actor) const { return running() && actor == &running_->threads->loop; }
  Status status() const { return running_->node->status(); }
  std::size_t pending_calls() const { return running_->calls.size(); }

  void append(const std::string& key, bool fails, Duration timeout);
  void read_local(const std::string& key);
  void read_linearizable(const std::string& key, Duration timeout);
  /// Asked of this member; how it ends is nobody's business but the configuration's.
  void change(node::Change change, Duration timeout);
  /// `done`: it succeeded.
  void compact(std::function<void()> done);
  /// Over the contents of all tables, and the index they are at.
  std::pair<std::uint64_t, Index> content();
  std::uint64_t starts() const { return starts_; }
  std::uint64_t snapshots_installed() const {
    return snapshots_installed_ + (running() ? status().snapshots_installed : 0);
  }

  std::optional<Term> durable_term(Index index) const override;
  std::pair<Term, Index> durable_end() const override;
  Result<DiskLog> read() const override;

 private:
  struct Threads {
    explicit Threads(test::SimScheduler& scheduler)
        : loop(scheduler),
          log_loop(scheduler),
          apply_loop(scheduler),
          bulk_loop(scheduler),
          checkpoint_loop(scheduler) {}
    test::SimLoop loop;
    test::SimLoop log_loop;
    test::SimLoop apply_loop;
    test::SimLoop bulk_loop;
    test::SimLoop checkpoint_loop;
  };
  struct Running {
    Running(test::SimScheduler& scheduler, test::SimNetwork& network, const std::string& host, std::uint64_t session)
        : threads(std::make_unique<Threads>(scheduler)),
          transport(network, threads->loop, host),
          mux(threads->loop, transport, {}),
          calls(session, {1u << 20, 1000}) {}
    std::unique_ptr<Threads> threads;
    test::SimTransport transport;
    net::Mux mux;
    node::Calls calls;
    std::optional<node::Started> started;
    std::unique_ptr<node::Node> node;
  };

  Options database_options() const;
  Commands commands();
  void stop_threads();
  void lose_meta_pages() const;
  void flip_bit(const Place& place);

  void end();
  void make_directories();
  std::optional<state::Checkpoint> ahead() const;
  std::string log_directory() const { return options_.directory / "log"; }
  void observe(const std::string& key, std::uint64_t read);
  History::Session session() const { return running_->calls.session(); }

  test::SimScheduler& scheduler_;
  test::SimNetwork& network_;
  History& history_;
  Oracle& oracle_;
  MemberOptions options_;
  std::unique_ptr<log::MemoryFileSystem> files_;
  std::unique_ptr<log::FaultyFileSystem> faulty_;
  std::unique_ptr<log::MemoryFileSystem> image_;  ///< and its state, in a directory of its own
  Index image_configuration_index_;
  NodeId id_;
  DiskLog disk_;                            ///< while it does not run
  std::optional<state::Checkpoint> ahead_;  ///< the same: what its next start begins the log anew after
  std::unique_ptr<Running> running_;
  std::vector<std::unique_ptr<Disk>> ghosts_;    ///< of the identities that it had
  std::vector<std::unique_ptr<Threads>> ended_;  ///< what is under way in the network still names them
  std::uint64_t starts_ = 0;
  std::uint64_t snapshots_installed_ = 0;  ///< in earlier runs
};

}  // namespace flotilla::sim
