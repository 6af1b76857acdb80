// The outermost shell of the network: the loop thread (Asio), its sockets, and the mux on top. The only place that
// knows Asio is the .cpp.
#pragma once

#include <memory>

#include "base/executor.hpp"
#include "flotilla/stream.hpp"
#include "net/mux.hpp"
#include "net/transport.hpp"

namespace flotilla::net {

/// An Asio io_context run by one thread of its own, named `flotilla-loop`. Thread: any, but for what Loop says.
class Port : public std::enable_shared_from_this<Port> {
 public:
  /// Starts the thread; does not listen yet. An exception that leaves a task is given to `failed` (on the loop thread).
  static std::shared_ptr<Port> start(MuxOptions options, std::function<void(const Error&)> failed);
  ~Port();

  Loop& loop();
  Transport& transport();
  Mux& mux();  ///< thread: loop
  /// Runs `task` on the loop thread and waits. Requires: not on the loop thread.
  void run_and_wait(Task task);
  /// Drops everything and joins the thread. Idempotent. Requires: not on the loop thread.
  void stop();

 private:
  Port();
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// The public stream layer on a port that may be shared with a database (which then passes the tags it keeps for
/// itself; it closes the StreamMux before it stops the port).
StreamMux make_stream_mux(std::shared_ptr<Port> port, bool owns_port, bool database_tags_reserved);

}  // namespace flotilla::net
