// Raft messages between members: one dialled link to each peer for what we say, accepted links for what we hear.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/executor.hpp"
#include "flotilla/status.hpp"
#include "net/link.hpp"
#include "net/mux.hpp"
#include "net/transport.hpp"
#include "raft/message.hpp"

namespace flotilla::node {

/// Thread: loop.
class Peers {
 public:
  struct Options {
    net::Hello local;
    net::FrameLimits limits;
    std::uint64_t seed = 1;
    LogSink log_sink;
  };
  struct Events {
    std::function<void(raft::Message)> message;  ///< its sender is who the link's Hello said
    std::function<void(NodeId)> unreachable;
  };
  Peers(Loop& loop, net::Transport& transport, net::Mux& mux, Options options, Events events);

  /// Links to all of these but ourselves. Besides them only to guests: who speaks to us and is not among them (to a
  /// joiner that is everybody) gets its answers at the address it stated, for as long as it stays connected.
  void set_members(const std::vector<Member>& members);
  /// Dropped if the link is down or full: Raft repeats what matters.
  void send(const raft::Message& message);
  void set_local(const net::Hello& local);

 private:
  struct Peer {
    Address address;
    std::unique_ptr<net::Link> link;
    bool guest = false;
  };
  void connect(const Member& member, bool guest);
  bool is_connected(NodeId id) const;
  void lost(net::LinkServer::ConnectionId connection);
  Result<void> admit(net::LinkServer::ConnectionId connection, const net::Hello& hello);
  void receive(net::LinkServer::ConnectionId connection, net::ReceivedFrame frame);

  Loop& loop_;
  net::Transport& transport_;
  Options options_;
  Events events_;
  std::map<NodeId, Peer> peers_;
  std::unordered_map<net::LinkServer::ConnectionId, NodeId> accepted_;  ///< of one run each: the server sees to it
  std::map<NodeId, std::uint64_t> newest_incarnation_;
  net::LinkServer server_;
};

}  // namespace flotilla::node
