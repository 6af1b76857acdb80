// Framed, authenticated-by-statement connections between members. PROTOCOL.md describes the bytes.
//
// Who dials sends its Hello first; who accepted answers with its own, or with a refusal that has a reason, and nothing
// else is decoded before. Then both send frames. A Link keeps one such connection up, with back-off; a LinkServer holds
// the accepted ones.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/executor.hpp"
#include "flotilla/error.hpp"
#include "flotilla/types.hpp"
#include "net/mux.hpp"
#include "net/transport.hpp"

namespace flotilla::net {

/// What a member states about itself before anything else.
struct Hello {
  ClusterId cluster_id;  ///< 0: not yet known (a joiner, on the admin service only)
  NodeId node_id;
  std::uint64_t incarnation = 0;
  Address address;  ///< where it can be dialled

  friend bool operator==(const Hello&, const Hello&) = default;
};

/// A frame to send: a type and its body in parts, so that payloads are not copied.
struct Frame {
  std::uint8_t type = 0;
  std::vector<SharedBytes> parts;
};

/// A received frame: the body is a slice of the receive buffer.
struct ReceivedFrame {
  std::uint8_t type = 0;
  SharedBytes body;
};

struct FrameLimits {
  std::size_t frame_bytes_max = 64u << 20;  ///< a longer announced length closes the connection, unread and unallocated
  std::size_t unsent_bytes_max = 64u << 20;  ///< send() refuses above it
  Duration handshake_timeout = std::chrono::seconds(5);
  Duration idle_timeout = std::chrono::seconds(0);  ///< close when nothing arrived for so long; 0: never
};

/// The dialling side: one connection to one peer and service, dialled again with back-off (50 ms doubling to 2 s, plus
/// jitter from `seed`) for as long as the Link lives. Thread: loop.
class Link {
 public:
  struct Options {
    Tag tag = raft_tag;
    Address address;
    Hello local;
    NodeId expected;  ///< close if the other side is another node; 0: any
    FrameLimits limits;
    Duration dial_timeout = std::chrono::seconds(2);
    std::uint64_t seed = 1;
    LogSink log_sink;
  };
  struct Events {
    std::function<void(const Hello& peer)> up;
    std::function<void(ReceivedFrame)> frame;
    std::function<void(const Error&)> down;  ///< after up(), or once per failed attempt
  };
  Link(Loop& loop, Transport& transport, Options options, Events events);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  bool up() const;
  /// Queues a frame. False: not up, or over unsent_bytes_max; then it was dropped and certainly not sent.
  bool send(Frame frame);
  std::size_t unsent_bytes() const;
  /// The peer moved: drop the connection if it differs, and dial there.
  void set_address(const Address& address);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// The accepting side of one service. Thread: loop.
class LinkServer {
 public:
  using ConnectionId = std::uint64_t;  ///< never used again
  struct Options {
    Tag tag = raft_tag;
    Hello local;
    bool admit_unknown_cluster = false;  ///< accept a Hello without a cluster id
    FrameLimits limits;
    LogSink log_sink;
  };
  struct Events {
    /// Before anything else of that connection; a refusal is sent to the peer and the connection closed.
    std::function<Result<void>(ConnectionId, const Hello& peer)> up;
    std::function<void(ConnectionId, ReceivedFrame)> frame;
    std::function<void(ConnectionId, const Error&)> down;
  };
  LinkServer(Loop& loop, Mux& mux, Options options, Events events);
  ~LinkServer();
  LinkServer(const LinkServer&) = delete;
  LinkServer& operator=(const LinkServer&) = delete;

  bool send(ConnectionId connection, Frame frame);
  void drop(ConnectionId connection);
  /// What is stated from now on (a joiner learns its cluster id).
  void set_local(const Hello& local);
  std::size_t connections() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flotilla::net
