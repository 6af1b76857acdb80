// Some cores, their disks and the network between them, in virtual time. Everything follows from the plan's seed.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "counters.hpp"
#include "disk.hpp"
#include "oracle.hpp"
#include "plan.hpp"
#include "raft/core.hpp"

namespace flotilla::sim {

class World {
 public:
  World(const Plan& plan, bool verbose);

  /// The safety phase, then the healed one. Throws Broken.
  void run();

  const Counters& counters() const { return counters_; }
  /// Of every event and the state it led to; equal for equal seeds on every compiler.
  std::uint64_t trace_hash() const { return trace_; }
  /// Ticks from the healing of all faults until everything was equal.
  std::uint64_t healing_ticks() const { return healing_ticks_; }

 private:
  enum class Kind : std::uint8_t {
    deliver,
    tick,
    sync,
    apply,
    client,
    fault,
    restart,
    log_read,
    bring_snapshot,
    install,
    trim,
    read
  };
  struct Event {
    Time time;
    std::uint64_t order;
    Kind kind;
    std::uint64_t node;         ///< 0: nobody's
    std::uint64_t incarnation;  ///< of that node; another one ignores it
    std::size_t parcel;         ///< message, log read or peer
  };
  struct Later {
    bool operator()(const Event& left, const Event& right) const {
      return left.time != right.time ? left.time > right.time : left.order > right.order;
    }
  };
  struct Write {
    Index index;
    Term term;
  };
  struct Read {
    Index at_least;                   ///< what any client had seen when it was asked
    std::optional<Index> read_index;  ///< confirmed, waiting to be applied
  };
  struct Node {
    NodeId id;
    raft::Configuration first;  ///< before its first entry
    Disk disk;
    std::optional<raft::Core> core;
    std::uint64_t incarnation = 0;
    ChainedLog log;  ///< what the core handed out to be written
    Index delivered;
    Index applied;
    std::deque<raft::Ready> writing;
    bool sync_due = false;
    bool apply_due = false;
    Time hung_until = 0;    ///< its disk
    Time paused_until = 0;  ///< all of it
    Time tick_period = tick_units;
    std::vector<Write> writes;
    std::map<std::uint64_t, Read> reads;
    std::optional<raft::SnapshotMeta> received;
    // As of the last check
    raft::Facts before;
    raft::Configuration configuration_before;
    std::map<NodeId, Index> matched;
  };
  struct Parcel {
    raft::Message message;
    raft::LogRead read;
    NodeId peer;
    Index snapshot_index;
  };

  // world.cpp: events
  void schedule(Time delay, Kind kind, std::uint64_t node, std::size_t parcel = 0);
  std::size_t pack(Parcel parcel);
  Parcel unpack(std::size_t at);
  void happen(const Event& event);
  void perform(const Event& event);
  Time draw(Time mean) { return random_.below(2 * mean + 1); }
  bool chance(std::uint64_t permille) { return random_.below(1000) < permille; }
  Node& node(std::uint64_t id) { return *nodes_.at(static_cast<std::size_t>(id - 1)); }
  Node& node(NodeId id) { return node(id.value); }
  bool up(std::uint64_t id) { return node(id).core.has_value(); }
  void run_for(Time duration);
  void note(const char* text, const Node& at);

  // world_node.cpp: one member and its disk
  void start(Node& at);
  raft::Restored restored(Node& at);
  void recover(Disk& disk);
  void crash(Node& at);
  void drain(Node& at);
  void take(Node& at);
  void append(Node& at, const raft::Ready& ready);
  void deliver(Node& at, const raft::Ready& ready);
  void complete_writes(Node& at, std::size_t count);
  void write(Node& at, const raft::Ready& ready);
  void apply(Node& at);
  void trim(Node& at);
  void answer_log_read(Node& at, const raft::LogRead& read);
  void bring_snapshot(Node& at, const Parcel& parcel);
  raft::SnapshotMeta snapshot_at(Index index);
  void install(Node& at);
  void answer_clients(Node& at);

  // world_network.cpp: messages and faults
  void send(Node& from, raft::Message message);
  void dispatch(raft::Message message);
  Time delay();
  void arrive(Parcel parcel);
  void fault();
  void fault_of_network();
  void partition();
  void cut(std::uint64_t from, std::uint64_t to) { cut_.insert({from, to}); }
  void cut_both(std::uint64_t a, std::uint64_t b);
  void reset_link(std::uint64_t from, std::uint64_t to);
  void crash_some();
  void strike();
  void isolate_and_ask(Node& leader);
  void pause(Node& at);
  Node* a_leader();
  Term highest_term();
  void restart_later(Node& at, Time mean);
  void client();
  void propose(Node& at);
  void ask_read(Node& at);
  std::uint64_t clock_of(const Node& at);
  void change_members(Node& at);

  // world_check.cpp: invariants, and the healed phase
  void check(Node& at);
  void check_leader(Node& at, const raft::Facts& now);
  void check_new_leader(Node& at, const raft::Facts& now);
  void check_commit(Node& at, const raft::Facts& now);
  void check_matches(Node& at);
  void check_leaving(const Node& from, const raft::Message& message);
  bool durably_has(Node& at, Index index, std::uint64_t chain);
  std::uint64_t chain_of(const ChainedLog& log, Index index) const;
  Time longest_delay() const;
  /// The longest that anybody waits for a leader before it stands.
  Time election_time() const { return 2 * plan_.options.election_ticks * tick_units; }
  void heal();
  void become_equal();
  void restart_all();
  void write_last();
  bool converged();
  void check_idle();

  Plan plan_;
  bool verbose_;
  raft::Random random_;
  Oracle oracle_;
  Counters counters_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::priority_queue<Event, std::vector<Event>, Later> events_;
  std::vector<Parcel> parcels_;
  std::vector<std::size_t> free_parcels_;
  std::set<std::pair<std::uint64_t, std::uint64_t>> cut_;
  std::map<std::pair<std::uint64_t, std::uint64_t>, Time> link_busy_until_;  ///< streams keep their order
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::uint64_t> link_resets_;
  Time now_ = 0;
  std::uint64_t order_ = 0;
  std::uint64_t trace_ = 0;
  std::uint64_t next_id_ = 0;
  bool healed_ = false;
  Term last_written_;  ///< healed: the leadership that was given the last write
  std::uint64_t healing_ticks_ = 0;
};

}  // namespace flotilla::sim
