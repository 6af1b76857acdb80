// How a new member gets in: it asks any member on the admin service; the leader adds it as a learner. Frames, on a link
// whose Hello may lack a cluster id:
//   1 join:   u64 node id, address (u32 length, bytes)
//   2 answer: u32 Errc (0: admitted), u64 + u64 cluster id, the leader's address or empty (u32 length, bytes), message
//   (u32 length, bytes)
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/executor.hpp"
#include "flotilla/status.hpp"
#include "net/link.hpp"

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
    std::vector<Address> addresses;
    net::FrameLimits limits;
    std::uint64_t seed = 1;
    LogSink log_sink;
  };
  Joiner(Loop& loop, net::Transport& transport, Options options, std::function<void(const ClusterId&)> admitted);
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
  std::function<void(const ClusterId&)> admitted_;
  std::size_t next_ = 0;
  unsigned redirects_ = 0;
  Address redirect_;
  std::unique_ptr<net::Link> link_;
  Loop::TimerId timer_ = 0;
};

/// The answering side. Thread: loop.
class Admission {
 public:
  struct Options {
    net::Hello local;
    net::FrameLimits limits;
    LogSink log_sink;
  };
  using Ask = std::function<JoinAnswer(const Member&)>;
  Admission(Loop& loop, net::Mux& mux, Options options, Ask ask);
  void set_local(const net::Hello& local) { server_.set_local(local); }

 private:
  void receive(net::LinkServer::ConnectionId connection, const net::ReceivedFrame& frame);

  Ask ask_;
  net::LinkServer server_;
};

}  // namespace flotilla::node
