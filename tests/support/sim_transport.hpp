// A network in memory, on a SimScheduler: byte streams with latency, bounded buffers, arbitrary chunking, and faults.
//
// A host is the part of an address before the colon. Bytes of one direction arrive in order or not at all, in chunks
// that have nothing to do with how they were sent. A blocked direction holds its bytes (TCP retransmits) until it is
// unblocked or the sender gives up after `user_timeout`.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/address.hpp"
#include "net/transport.hpp"
#include "support/sim_loop.hpp"

namespace flotilla::test {

/// What the network does to everybody; may be changed at any time.
struct SimWeather {
  Duration latency_min = std::chrono::microseconds(50);
  Duration latency_max = std::chrono::microseconds(200);
  std::size_t chunk_max = 64u << 10;      ///< of one delivery; 1: every byte alone
  std::size_t window_bytes = 128u << 10;  ///< of one direction, sent and not yet read
  double reset_chance = 0;                ///< per chunk: the connection breaks instead
  Duration user_timeout = std::chrono::seconds(60);
};

class SimNetwork {
 public:
  explicit SimNetwork(SimScheduler& scheduler) : scheduler_(scheduler) {}
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;
  ~SimNetwork() { scheduler_.forget(this); }

  SimWeather weather;
  /// Sees every byte as its sender hands it over, whether or not it arrives.
  std::function<void(std::uint64_t socket, std::string_view bytes)> tap;

  /// Bytes (and dials) from `from` do not reach `to` any more, until unblocked.
  void block(const std::string& from, const std::string& to) { blocked_.emplace(from, to); }
  void unblock(const std::string& from, const std::string& to) { blocked_.erase({from, to}); }
  void partition(const std::string& one, const std::string& other) {
    block(one, other);
    block(other, one);
  }
  void heal(const std::string& one, const std::string& other) {
    unblock(one, other);
    unblock(other, one);
  }
  void heal_all() {
    blocked_.clear();
    stalled_.clear();
  }
  /// A host whose machine hangs: nothing moves to or from it.
  void stall(const std::string& host) { stalled_.insert(host); }
  void unstall(const std::string& host) { stalled_.erase(host); }
  /// Breaks every connection between two hosts.
  void reset(const std::string& one, const std::string& other);
  /// The process on `host` died: its listeners and connections are gone. Its peers are told (killed), or not (power
  /// loss: they notice when they send and the host is back, or by their own timeouts).
  void kill(const std::string& host, bool peers_are_told = true);
  /// The next `count` accepts of `host` fail; those connections are taken 100 ms later.
  void fail_accepts(const std::string& host, unsigned count) { failing_accepts_[host] = count; }
  /// Connections that are open now, counted once per side.
  std::size_t sockets() const { return sockets_.size(); }

 private:
  friend class SimTransport;
  class Socket;
  class SocketConnection;
  class ListenerImpl;
  struct Listening {
    SimLoop* loop;
    net::AcceptEvents events;
  };
  struct Dial;

  bool blocked(const std::string& from, const std::string& to) const {
    return stalled_.contains(from) || stalled_.contains(to) || blocked_.contains({from, to});
  }
  Duration latency() { return scheduler_.between(weather.latency_min, weather.latency_max); }
  void accept(const Address& at, std::shared_ptr<Socket> socket);
  void try_dial(const std::shared_ptr<Dial>& dial);

  SimScheduler& scheduler_;
  std::set<std::pair<std::string, std::string>> blocked_;
  std::set<std::string> stalled_;
  std::map<std::string, unsigned> failing_accepts_;
  std::map<Address, std::shared_ptr<Listening>> listening_;
  std::map<std::uint64_t, Socket*> sockets_;  // by the order of their making, so that a run repeats itself
  std::uint64_t last_socket_ = 0;
  std::uint16_t last_port_ = 40000;
};

/// One side of a connection; what its SocketConnection and the events under way share.
class SimNetwork::Socket : public std::enable_shared_from_this<Socket> {
 public:
  Socket(SimNetwork& network, SimLoop& loop, Address local, Address remote)
      : network_(network),
        loop_(loop),
        local_(std::move(local)),
        remote_(std::move(remote)),
        id_(++network.last_socket_) {
    network_.sockets_.emplace(id_, this);
  }
  ~Socket() { network_.sockets_.erase(id_); }

  static void join(const std::shared_ptr<Socket>& one, const std::shared_ptr<Socket>& other) {
    one->peer_ = other;
    other->peer_ = one;
  }

  void start(net::ConnectionHandler& handler) {
    handler_ = &handler;
    pump_later();
  }
  void pause() { paused_ = true; }
  void resume() {
    paused_ = false;
    pump_later();
  }
  void send(std::vector<SharedBytes> parts) {
    if (dead_ || broken_ || finishing_) return;
    for (const SharedBytes& part : parts) unsent_ += part.view();
    if (network_.tap) {
      for (const SharedBytes& part : parts) network_.tap(id_, part.view());
    }
    transmit_later();
  }
  void finish() {
    if (dead_ || broken_) return;
    finishing_ = true;
    transmit_later();
  }
  std::size_t unsent_bytes() const { return unsent_.size(); }
  const Address& remote() const { return remote_; }
  std::string host() const { return std::string(net::host_of(local_)); }
  std::string peer_host() const { return std::string(net::host_of(remote_)); }

  /// Its owner dropped it: what it handed over before still arrives, then the end.
  void drop() {
    if (dead_) return;
    handler_ = nullptr;
    transmit();  // what fits leaves with it
    dead_ = true;
    unsent_.clear();
    if (!broken_ && !std::exchange(fin_sent_, true)) put_on_wire({});
  }
  /// Gone without a word.
  void vanish() {
    dead_ = true;
    handler_ = nullptr;
    unsent_.clear();
    wire_.clear();
  }
  void break_later(std::string why) {
    if (dead_) return;
    loop_.post([self = shared_from_this(), why = std::move(why)] { self->fail(why); });
  }

 private:
  friend class SimNetwork;
  struct Chunk {
    std::string bytes;  // empty: the end
    Duration arrives;
  };

  void fail(const std::string& why) {
    if (dead_ || broken_) return;
    broken_.emplace(Errc::io_error, why);
    unsent_.clear();
    pump();
  }

  void transmit_later() {
    if (std::exchange(transmitting_, true)) return;
    loop_.post([self = shared_from_this()] {
      self->transmitting_ = false;
      self->transmit();
    });
  }
  void transmit() {
    if (dead_ || broken_) return;
    const bool had = !unsent_.empty();
    // Wait for half a window: filling up every byte of room would end in a stream of single bytes.
    if (window_ <= network_.weather.window_bytes / 2) {
      std::size_t at = 0;
      while (at < unsent_.size() && window_ < network_.weather.window_bytes) {
        const std::size_t room = std::min(network_.weather.window_bytes - window_, unsent_.size() - at);
        const std::size_t most = std::max<std::size_t>(1, std::min(room, network_.weather.chunk_max));
        const std::size_t count = 1 + network_.scheduler_.below(most);
        window_ += count;
        put_on_wire(unsent_.substr(at, count));
        at += count;
      }
      unsent_.erase(0, at);
    }
    if (!unsent_.empty()) return;
    if (finishing_ && !std::exchange(fin_sent_, true)) put_on_wire({});
    if (had && handler_ != nullptr) handler_->on_drained();
  }
  void put_on_wire(std::string bytes) {
    const Duration last = wire_.empty() ? Duration::zero() : wire_.back().arrives;
    wire_.push_back({std::move(bytes), std::max(last, network_.scheduler_.now() + network_.latency())});
    if (wire_.size() == 1) carry_at(wire_.front().arrives);
  }
  void carry_at(Duration when) {
    network_.scheduler_.at(when, &network_, [self = shared_from_this()] { self->carry(); });
  }
  /// The front of the wire arrives at the peer, or is sent again later.
  void carry() {
    if (wire_.empty()) return;
    if (network_.blocked(host(), peer_host()) || network_.blocked(peer_host(), host())) {
      // Without acknowledgements nothing moves either: a one-way block stops the stream in both directions.
      const Duration now = network_.scheduler_.now();
      if (blocked_since_ == Duration::zero()) blocked_since_ = now;
      if (now - blocked_since_ >= network_.weather.user_timeout) {
        wire_.clear();
        return break_later("connection timed out");
      }
      return carry_at(now + network_.scheduler_.between(std::chrono::milliseconds(20), std::chrono::milliseconds(200)));
    }
    blocked_since_ = Duration::zero();
    if (!wire_.front().bytes.empty() && network_.scheduler_.chance(network_.weather.reset_chance)) {
      wire_.clear();
      if (const auto peer = peer_.lock()) peer->break_later("connection reset by peer");
      return break_later("connection reset by peer");
    }
    const Chunk chunk = std::move(wire_.front());
    wire_.pop_front();
    if (!wire_.empty()) carry_at(wire_.front().arrives);
    const auto peer = peer_.lock();
    if (!peer || (peer->dead_ && !chunk.bytes.empty())) {
      wire_.clear();
      return break_later("connection reset by peer");
    }
    peer->arrive(chunk);
  }
  void arrive(const Chunk& chunk) {
    arrived_ += chunk.bytes;
    if (chunk.bytes.empty()) end_arrived_ = true;
    pump_later();
  }

  void pump_later() {
    if (dead_ || std::exchange(pumping_, true)) return;
    loop_.post([self = shared_from_this()] {
      self->pumping_ = false;
      self->pump();
    });
  }
  void pump() {
    if (handler_ == nullptr) return;
    if (broken_) {
      net::ConnectionHandler* const handler = std::exchange(handler_, nullptr);
      return handler->on_closed(*broken_);
    }
    if (paused_) return;
    if (!arrived_.empty()) {
      const std::size_t most = std::max<std::size_t>(1, std::min(arrived_.size(), network_.weather.chunk_max));
      const std::string bytes = arrived_.substr(0, 1 + network_.scheduler_.below(most));
      arrived_.erase(0, bytes.size());
      if (const auto peer = peer_.lock()) peer->acknowledged(bytes.size());
      handler_->on_data(bytes);
      return pump_later();
    }
    if (end_arrived_ && !std::exchange(end_told_, true)) handler_->on_end();
  }
  void acknowledged(std::size_t count) {
    window_ -= count;
    if (!dead_ && !unsent_.empty() && window_ <= network_.weather.window_bytes / 2) transmit_later();
  }

  SimNetwork& network_;
  SimLoop& loop_;
  const Address local_;
  const Address remote_;
  const std::uint64_t id_;
  std::weak_ptr<Socket> peer_;
  net::ConnectionHandler* handler_ = nullptr;
  std::string unsent_;
  std::deque<Chunk> wire_;
  std::size_t window_ = 0;
  std::string arrived_;
  Duration blocked_since_{};
  bool paused_ = false;
  bool transmitting_ = false;
  bool pumping_ = false;
  bool finishing_ = false;
  bool fin_sent_ = false;
  bool end_arrived_ = false;
  bool end_told_ = false;
  bool dead_ = false;
  std::optional<Error> broken_;
};

class SimNetwork::SocketConnection final : public net::Connection {
 public:
  explicit SocketConnection(std::shared_ptr<Socket> socket) : socket_(std::move(socket)) {}
  ~SocketConnection() override { socket_->drop(); }
  void start(net::ConnectionHandler& handler) override { socket_->start(handler); }
  void pause() override { socket_->pause(); }
  void resume() override { socket_->resume(); }
  void send(std::vector<SharedBytes> parts) override { socket_->send(std::move(parts)); }
  std::size_t unsent_bytes() const override { return socket_->unsent_bytes(); }
  void finish() override { socket_->finish(); }
  Address remote() const override { return socket_->remote(); }

 private:
  const std::shared_ptr<Socket> socket_;
};

class SimNetwork::ListenerImpl final : public net::Listener {
 public:
  ListenerImpl(SimNetwork& network, Address address, std::shared_ptr<Listening> listening)
      : network_(network), address_(std::move(address)), listening_(std::move(listening)) {}
  ~ListenerImpl() override {
    const auto at = network_.listening_.find(address_);
    if (at != network_.listening_.end() && at->second == listening_) network_.listening_.erase(at);
  }
  Address address() const override { return address_; }

 private:
  SimNetwork& network_;
  const Address address_;
  const std::shared_ptr<Listening> listening_;
};

struct SimNetwork::Dial {
  SimLoop* loop;
  Address from;
  Address to;
  net::Transport::DialDone done;
  Loop::TimerId timer = 0;
  bool ended = false;

  void end(Result<std::unique_ptr<net::Connection>> result) {
    if (std::exchange(ended, true)) return;
    loop->cancel(timer);
    const auto call = std::move(done);
    call(std::move(result));
  }
};

/// One host's way to the network. A member has one; it must outlive what it made.
class SimTransport final : public net::Transport {
 public:
  SimTransport(SimNetwork& network, SimLoop& loop, std::string host)
      : network_(network), loop_(loop), host_(std::move(host)) {}

  [[nodiscard]] Result<std::unique_ptr<net::Listener>> listen(const Address& address,
                                                              net::AcceptEvents events) override {
    auto parsed = net::parse_address(address);
    if (!parsed) return fail(parsed.error());
    const std::uint16_t port = parsed->port == 0 ? ++network_.last_port_ : parsed->port;
    const Address at = net::format_address(host_, port);
    if (network_.listening_.contains(at)) return fail(Error(Errc::address_in_use));
    auto listening = std::make_shared<SimNetwork::Listening>(SimNetwork::Listening{&loop_, std::move(events)});
    network_.listening_[at] = listening;
    return std::make_unique<SimNetwork::ListenerImpl>(network_, at, std::move(listening));
  }

  [[nodiscard]] std::shared_ptr<void> dial(const Address& address, Duration timeout, DialDone done) override {
    auto dial = std::make_shared<SimNetwork::Dial>();
    dial->loop = &loop_;
    dial->from = net::format_address(host_, ++network_.last_port_);
    dial->to = address;
    dial->done = std::move(done);
    dial->timer = loop_.after(
        timeout, [dial] { dial->end(tl::unexpected(Error(Errc::timeout, "dialling " + dial->to + ": no answer"))); });
    network_.scheduler_.at(network_.scheduler_.now() + network_.latency(), &network_,
                           [network = &network_, dial] { network->try_dial(dial); });
    struct Handle {
      explicit Handle(std::shared_ptr<SimNetwork::Dial> the_dial) : dial(std::move(the_dial)) {}
      Handle(const Handle&) = delete;
      ~Handle() {
        dial->ended = true;
        dial->loop->cancel(dial->timer);
      }
      std::shared_ptr<SimNetwork::Dial> dial;
    };
    return std::make_shared<Handle>(std::move(dial));
  }

 private:
  SimNetwork& network_;
  SimLoop& loop_;
  const std::string host_;
};

inline void SimNetwork::try_dial(const std::shared_ptr<Dial>& dial) {
  if (dial->ended) return;
  const std::string from(net::host_of(dial->from));
  const std::string to(net::host_of(dial->to));
  if (blocked(from, to) || blocked(to, from)) {
    scheduler_.at(scheduler_.now() + std::chrono::milliseconds(200), this, [this, dial] { try_dial(dial); });
    return;
  }
  if (!listening_.contains(dial->to)) {
    dial->loop->post([dial] {
      if (!dial->ended) dial->end(tl::unexpected(Error(Errc::io_error, "dialling " + dial->to + ": refused")));
    });
    return;
  }
  auto near = std::make_shared<Socket>(*this, *dial->loop, dial->from, dial->to);
  auto far = std::make_shared<Socket>(*this, *listening_.at(dial->to)->loop, dial->to, dial->from);
  Socket::join(near, far);
  accept(dial->to, std::move(far));
  scheduler_.at(scheduler_.now() + latency(), this, [dial, near] {
    dial->loop->post([dial, near] {
      auto connection = std::make_unique<SocketConnection>(near);
      if (!dial->ended) dial->end(std::move(connection));
    });
  });
}

inline void SimNetwork::accept(const Address& at, std::shared_ptr<Socket> socket) {
  const auto found = listening_.find(at);
  if (found == listening_.end()) return socket->drop();
  const std::shared_ptr<Listening> listening = found->second;
  unsigned& failing = failing_accepts_[std::string(net::host_of(at))];
  if (failing > 0) {
    --failing;
    listening->loop->post([weak = std::weak_ptr(listening)] {
      if (const auto alive = weak.lock()) alive->events.failed(Error(Errc::io_error, "too many open files"));
    });
    scheduler_.at(scheduler_.now() + std::chrono::milliseconds(100), this,
                  [this, at, socket = std::move(socket)] { accept(at, socket); });
    return;
  }
  listening->loop->post([weak = std::weak_ptr(listening), socket = std::move(socket)] {
    auto connection = std::make_unique<SocketConnection>(socket);
    if (const auto alive = weak.lock()) alive->events.accepted(std::move(connection));
  });
}

inline void SimNetwork::reset(const std::string& one, const std::string& other) {
  for (const auto& [id, socket] : sockets_) {
    const bool between = (socket->host() == one && socket->peer_host() == other) ||
                         (socket->host() == other && socket->peer_host() == one);
    if (between) socket->break_later("connection reset by peer");
  }
}

inline void SimNetwork::kill(const std::string& host, bool peers_are_told) {
  std::erase_if(listening_, [&](const auto& entry) { return net::host_of(entry.first) == host; });
  const auto all = sockets_;
  for (const auto& [id, socket] : all) {
    if (socket->host() == host) socket->vanish();
    if (peers_are_told && socket->peer_host() == host) socket->break_later("connection reset by peer");
  }
}

}  // namespace flotilla::test
