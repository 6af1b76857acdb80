// How a new member gets in: it asks any member on the administration service; the leader adds it as a learner. In the
// same way a member that hears of no leader learns that it was removed, or makes its new address known. Frames, on a
// link whose Hello may lack a cluster id:
//   1 join:   u64 node id, u8 flags (1: stays a learner), address (u32 length, bytes)
//   2 answer: u32 Errc (0: admitted), u64 + u64 cluster id, the leader's address or empty (u32 length, bytes), message
//   (u32 length, bytes)
// The service takes changes of members too; changes.hpp has their frames.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/executor.hpp"
#include "flotilla/status.hpp"
#include "net/link.hpp"
#include "node/change.hpp"

namespace flotilla::node {

struct JoinAnswer {
  std::optional<Error> refused;  ///< none: admitted
  ClusterId cluster_id;
  Address leader;  ///< where to ask instead, if refused for not leading
};

/// The asking side: tries the given addresses and the leaders they name, in turn, until stopped. Thread: loop.
class Joiner {
 public:
  struct Options {
    net::Hello local;
    bool as_learner = false;
    std::vector<Address> addresses;
    net::FrameLimits limits;
    std::uint64_t seed = 1;
    LogSink log_sink;
  };
  struct Events {
    std::function<void(const ClusterId&)> admitted;
    std::function<void(const Error&)> removed;  ///< this member belonged to the cluster once
  };
  Joiner(Loop& loop, net::Transport& transport, Options options, Events events);
  ~Joiner();
  /// Asks again after the cluster became known, or because the admission was lost; stops only with the Joiner.
  void set_local(const net::Hello& local);

 private:
  void ask(const Address& address);
  void ask_next(Duration delay);
  void receive(const net::ReceivedFrame& frame);

  Loop& loop_;
  net::Transport& transport_;
  Options options_;
  Events events_;
  std::size_t next_ = 0;
  unsigned redirects_ = 0;
  Address redirect_;
  std::unique_ptr<net::Link> link_;
  Loop::TimerId timer_ = 0;
};

/// The answering side, also for changes of members. Thread: loop.
class Admission {
 public:
  struct Options {
    net::Hello local;
    net::FrameLimits limits;
    LogSink log_sink;
  };
  struct Events {
    /// `stranger`: it stated no cluster, so nothing says that it is who it says.
    std::function<JoinAnswer(const Member&, bool stranger)> join;
    std::function<ChangeAnswer(const Change&)> change;  ///< of a peer that stated the cluster's id
  };
  Admission(Loop& loop, net::Mux& mux, Options options, Events events);
  void set_local(const net::Hello& local) { server_.set_local(local); }

 private:
  void receive(net::LinkServer::ConnectionId connection, const net::ReceivedFrame& frame);
  /// nullopt: malformed, or not for whoever sent it.
  std::optional<net::Frame> answer_join(net::LinkServer::ConnectionId connection, const net::ReceivedFrame& frame);
  std::optional<net::Frame> answer_change(net::LinkServer::ConnectionId connection, const net::ReceivedFrame& frame);

  Events events_;
  struct Peer {
    NodeId id;
    bool stranger = false;  ///< stated no cluster
  };
  std::unordered_map<net::LinkServer::ConnectionId, Peer> peers_;
  net::LinkServer server_;
};

}  // namespace flotilla::node
