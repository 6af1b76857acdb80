// How a member gets the state that no log can bring it any more (DESIGN 11): the leader makes a compacted copy of its
// database, states its length and hash, and streams it on a connection of its own. Frames on the snapshot service,
// after the Hellos:
//   1 begin:  u64 term of the leader, u64 index and u64 term of the last entry that the snapshot includes, u64 bytes,
//             u64 + u64 hash (XXH3, 128 bits)
//   2 chunk:  u64 offset, then the bytes: the next ones, at most 256 KiB
//   3 answer: u8 state (0: going on, 1: complete and durable, 2: refused), u64 bytes written so far, message (u32
//             length, bytes)
// The sender keeps at most eight chunks unanswered, so the receiver's disk sets the pace. What the receiver then does
// with the snapshot is between the two cores.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/executor.hpp"
#include "flotilla/status.hpp"
#include "net/link.hpp"
#include "raft/ready.hpp"
#include "state/directory.hpp"
#include "state/snapshot.hpp"
#include "state/store.hpp"

namespace flotilla::node {

raft::SnapshotMeta meta_of(const state::Applied& applied);

/// The sending side. One copy serves all who need one at the time. Thread: loop.
class SnapshotSender {
 public:
  struct Options {
    net::Hello local;
    std::uint64_t seed = 1;
    std::uint64_t reserve_bytes = 0;  ///< of the disk, which a copy leaves to others
    LogSink log_sink;
  };
  struct Events {
    /// `peer` holds all of it, verified and durable.
    std::function<void(NodeId peer, const raft::SnapshotMeta&)> sent;
    std::function<void(NodeId peer)> failed;
  };
  /// `bulk` runs what takes long: the copy, and reading it.
  SnapshotSender(Loop& loop, Executor& bulk, net::Transport& transport, state::Store& store,
                 const state::Directory& directory, Options options, Events events);
  ~SnapshotSender();

  void set_local(const net::Hello& local) { options_.local = local; }
  /// Begins anew if one is under way to that peer; after failures not at once. `term`: of this leader. `log_begins`:
  /// its oldest entry; an older copy would be in vain.
  void send(const Member& peer, Term term, Index log_begins);
  /// What the core says of a peer.
  struct Peer {
    bool needs_snapshot = false;
    bool lags = false;  ///< behind what the log would keep without us
    Index matched;
  };
  /// Begins what is due, and ends what is not needed any more or makes no progress. The log is kept for a receiver from
  /// the snapshot on, and then from where it got to, until it does not lag any more. nullopt: not a peer.
  void tick(const std::function<std::optional<Peer>(NodeId)>& peer_of);
  /// The first entry that must stay in the log for them (the last that the snapshot includes: its term is needed to go
  /// on from there); nullopt: any.
  std::optional<Index> first_needed() const;
  /// The log has become too large to be kept for them.
  void end_all(const std::string& why);
  bool idle() const noexcept { return transfers_.empty(); }

 private:
  struct Transfer;
  using Copy = std::shared_ptr<const state::SnapshotCopy>;

  void connect(const std::shared_ptr<Transfer>& transfer);
  void connected(const std::shared_ptr<Transfer>& transfer);
  void make_copy();
  void copied(Result<Copy> copy);
  void begin(Transfer& transfer);
  void receive(const std::shared_ptr<Transfer>& transfer, const net::ReceivedFrame& frame);
  void pump(const std::shared_ptr<Transfer>& transfer);
  void send_chunk(Transfer& transfer, std::uint64_t offset, Result<std::string> bytes);
  void end(NodeId peer, const std::string& why);
  void let_go(std::shared_ptr<Transfer> transfer);
  void keep(Copy copy);

  Loop& loop_;
  Executor& bulk_;
  net::Transport& transport_;
  state::Store& store_;
  const state::Directory& directory_;
  Options options_;
  Events events_;
  std::map<NodeId, std::shared_ptr<Transfer>> transfers_;
  Copy newest_;  ///< for a while: the next who asks may do with it
  Duration newest_used_at_{};
  std::map<NodeId, unsigned> failures_;  ///< in a row
  std::uint64_t copies_ = 0;
  bool copying_ = false;
  const std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);
};

/// The receiving side: one snapshot at a time, the newest sender's. Thread: loop.
class SnapshotReceiver {
 public:
  struct Options {
    net::Hello local;
    std::uint64_t bytes_max = 0;
    std::uint64_t reserve_bytes = 0;  ///< of the disk, which a snapshot leaves to others
    bool sync = true;
    LogSink log_sink;
  };
  struct Ask {
    std::function<Term()> term;                 ///< this member's, now
    std::function<bool(NodeId)> may_be_leader;  ///< as far as this member knows
  };
  SnapshotReceiver(Loop& loop, Executor& bulk, net::Mux& mux, const state::Directory& directory, Options options,
                   Ask ask);
  ~SnapshotReceiver();

  void set_local(const net::Hello& local) { server_.set_local(local); }
  /// What lies complete in the directory, if it includes `index`. Nothing is received until release().
  std::optional<state::Applied> take(Index index);
  void release() { taken_ = false; }
  /// Removes what nobody has taken for long.
  void tick();

 private:
  using ConnectionId = net::LinkServer::ConnectionId;
  struct Arriving;
  struct Complete {
    state::Applied applied;
    Duration at{};
  };
  enum class State : std::uint8_t { going_on, complete, refused };

  void receive(ConnectionId connection, net::ReceivedFrame frame);
  void begin(ConnectionId connection, std::string_view body);
  void take_chunk(ConnectionId connection, const net::ReceivedFrame& frame);
  void written(const std::shared_ptr<Arriving>& arriving, Result<std::uint64_t> written);
  void finish(const std::shared_ptr<Arriving>& arriving);
  void finished(const std::shared_ptr<Arriving>& arriving, Result<state::Applied> applied);
  void answer(ConnectionId connection, State state, std::uint64_t written, std::string_view message);
  void refuse(ConnectionId connection, std::string_view message);
  void abandon();
  void remove_files();

  Loop& loop_;
  Executor& bulk_;
  const state::Directory& directory_;
  Options options_;
  Ask ask_;
  std::map<ConnectionId, NodeId> senders_;
  std::shared_ptr<Arriving> arriving_;
  std::optional<Complete> complete_;
  bool taken_ = false;
  net::LinkServer server_;
  const std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);
};

}  // namespace flotilla::node
