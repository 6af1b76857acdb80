// Commands on their way to the leader. A follower sends its calls to the leader and learns their results from its own
// apply; only refusals come back. net/PROTOCOL.md describes the link, this file the frames on it:
//   1 calls:    u32 count, then per call: u64 sequence, u64 attempt, u8 entry type, u32 remaining milliseconds, payload
//   (u32 length, bytes) 2 refusals: u32 count, then per call: u64 sequence, u64 attempt, u32 Errc, message (u32 length,
//   bytes)
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/executor.hpp"
#include "flotilla/status.hpp"
#include "net/link.hpp"
#include "raft/entry.hpp"

namespace flotilla::node {

struct ForwardedCall {
  std::uint64_t sequence = 0;
  std::uint64_t attempt = 0;  ///< the how-manieth sending of this call
  raft::EntryType type = raft::EntryType::command;
  std::chrono::milliseconds remaining{0};
  SharedBytes payload;
};

struct Refusal {
  std::uint64_t sequence = 0;
  std::uint64_t attempt = 0;
  Errc code = Errc::proposal_dropped;
  std::string message;
};

/// Thread: loop.
class Forwarding {
 public:
  struct Options {
    net::Hello local;
    net::FrameLimits limits;
    std::uint64_t seed = 1;
    LogSink log_sink;
  };
  struct Events {
    /// As leader: a peer's calls. Returns those that were refused; the others were appended.
    std::function<std::vector<Refusal>(std::vector<ForwardedCall>)> calls;
    /// As follower: these copies were certainly not appended.
    std::function<void(std::vector<Refusal>)> refused;
    /// The link to the leader came up or broke: copies sent before may be lost.
    std::function<void(bool up)> link;
  };
  Forwarding(Loop& loop, net::Transport& transport, net::Mux& mux, Options options, Events events);

  /// Where calls go from now on; nullptr or ourselves: nowhere.
  void set_leader(const Member* leader);
  bool up() const { return link_ && link_->up(); }
  /// Sends in order, many calls to a frame. Returns how many of them were queued; the rest certainly did not leave.
  std::size_t send(const std::vector<ForwardedCall>& calls);
  void set_local(const net::Hello& local);

 private:
  void receive_calls(net::LinkServer::ConnectionId connection, const net::ReceivedFrame& frame);
  void receive_refusals(const net::ReceivedFrame& frame);

  Loop& loop_;
  net::Transport& transport_;
  Options options_;
  Events events_;
  NodeId leader_id_;
  Address leader_address_;
  std::unique_ptr<net::Link> link_;
  net::LinkServer server_;
};

}  // namespace flotilla::node
