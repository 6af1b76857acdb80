#include "net/link.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "base/log_sink.hpp"
#include "net/channel.hpp"

namespace flotilla::net {
namespace {

constexpr Duration back_off_min = std::chrono::milliseconds(50);
constexpr Duration back_off_max = std::chrono::seconds(2);
// Only a connection that lived so long proves that the next dial may come at once again.
constexpr Duration stable_after = std::chrono::seconds(1);
// Accepted connections of one service that have not stated who they are, or were refused.
constexpr std::size_t greeting_max = 64;

std::uint64_t next_random(std::uint64_t& state) {  // splitmix64
  std::uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

// --- the dialling side ---------------------------------------------------------------------------------------------

class Link::Impl final : public ChannelOwner {
 public:
  Impl(Loop& loop, Transport& transport, Options options, Events events)
      : loop_(loop),
        transport_(transport),
        options_(std::move(options)),
        events_(std::make_shared<const Events>(std::move(events))),
        random_(options_.seed) {
    dial();
  }
  ~Impl() {
    if (timer_ != 0) loop_.cancel(timer_);
  }

  bool up() const { return up_; }
  bool send(Frame frame) { return up_ && channel_->send(std::move(frame)); }
  std::size_t unsent_bytes() const { return channel_ ? channel_->unsent_bytes() : 0; }

  void set_address(const Address& address) {
    if (address == options_.address) return;
    options_.address = address;
    const bool was_up = std::exchange(up_, false);
    channel_.reset();
    attempts_ = 0;
    if (timer_ != 0) loop_.cancel(std::exchange(timer_, 0));
    if (was_up) {
      loop_.post([weak = std::weak_ptr<const Events>(events_)] {
        if (const auto events = weak.lock()) events->down(Error(Errc::closed, "the peer has another address now"));
      });
    }
    dial();
  }

 private:
  void dial() {
    dialling_ =
        transport_.dial(options_.address, options_.dial_timeout, [this](Result<std::unique_ptr<Connection>> result) {
          if (!result) return attempt_failed(result.error());
          greet(std::move(*result));
        });
  }

  void greet(std::unique_ptr<Connection> connection) {
    dialling_.reset();
    channel_ = std::make_unique<Channel>(loop_, *this, 0, std::move(connection), options_.limits);
    channel_->greet(options_.tag, options_.local);
    channel_->start({});
  }

  void on_hello(Channel&, const Hello& peer) override {
    if (auto wrong = check(peer)) return attempt_failed(*wrong);
    channel_->open();
    up_ = true;
    up_since_ = loop_.now();
    const auto events = events_;
    events->up(peer);
  }

  std::optional<Error> check(const Hello& peer) const {
    const Hello& local = options_.local;
    if (local.cluster_id && local.cluster_id != peer.cluster_id) {
      return Error(Errc::wrong_cluster, fmt::format("{} belongs to another cluster", options_.address));
    }
    if (options_.expected && options_.expected != peer.node_id) {
      return Error(Errc::wrong_cluster, fmt::format("{} is node {:016x}, not {:016x}", options_.address,
                                                    peer.node_id.value, options_.expected.value));
    }
    if (local.node_id && local.node_id == peer.node_id) {
      return Error(Errc::wrong_cluster, fmt::format("{} is this node itself", options_.address));
    }
    return std::nullopt;
  }

  void on_frame(Channel&, ReceivedFrame frame) override {
    const auto events = events_;
    events->frame(std::move(frame));
  }

  void on_broken(Channel&, const Error& error) override { attempt_failed(error); }

  void attempt_failed(const Error& why) {
    const Error error = why;  // it may live in the channel
    dialling_.reset();
    channel_.reset();
    if (std::exchange(up_, false) && loop_.now() - up_since_ >= stable_after) attempts_ = 0;
    log_line(options_.log_sink, LogLevel::debug, "link to {}: {}", options_.address, error.message());
    timer_ = loop_.after(back_off(), [this] {
      timer_ = 0;
      dial();
    });
    const auto events = events_;
    events->down(error);
  }

  Duration back_off() {
    const Duration delay = std::min(back_off_max, back_off_min * (1 << std::min(attempts_, 6u)));
    ++attempts_;
    return delay + delay * static_cast<std::int64_t>(next_random(random_) % 1024) / 2048;
  }

  Loop& loop_;
  Transport& transport_;
  Options options_;
  const std::shared_ptr<const Events> events_;  // a handler may destroy the link while it runs
  std::uint64_t random_;
  unsigned attempts_ = 0;
  std::shared_ptr<void> dialling_;
  std::unique_ptr<Channel> channel_;
  Loop::TimerId timer_ = 0;
  bool up_ = false;
  Duration up_since_{};
};

Link::Link(Loop& loop, Transport& transport, Options options, Events events)
    : impl_(std::make_unique<Impl>(loop, transport, std::move(options), std::move(events))) {}

Link::~Link() = default;

bool Link::up() const {
  return impl_->up();
}

bool Link::send(Frame frame) {
  return impl_->send(std::move(frame));
}

std::size_t Link::unsent_bytes() const {
  return impl_->unsent_bytes();
}

void Link::set_address(const Address& address) {
  impl_->set_address(address);
}

// --- the accepting side --------------------------------------------------------------------------------------------

class LinkServer::Impl final : public ChannelOwner {
 public:
  Impl(Loop& loop, Mux& mux, Options options, Events events)
      : loop_(loop),
        mux_(mux),
        options_(std::move(options)),
        events_(std::make_shared<const Events>(std::move(events))) {
    const Result<void> added =
        mux_.add(options_.tag, [this](std::unique_ptr<Connection> connection, std::string initial) {
          accept(std::move(connection), initial);
        });
    FLOTILLA_ASSERT(added.has_value());
  }
  ~Impl() { mux_.remove(options_.tag); }

  bool send(ConnectionId id, Frame frame) {
    const auto at = sessions_.find(id);
    return at != sessions_.end() && at->second.channel->send(std::move(frame));
  }
  void drop(ConnectionId id) {
    greeting_.erase(id);
    sessions_.erase(id);
  }
  void set_local(const Hello& local) { options_.local = local; }
  std::size_t connections() const {
    const auto up = [](const auto& entry) { return entry.second.up; };
    return static_cast<std::size_t>(std::count_if(sessions_.begin(), sessions_.end(), up));
  }

 private:
  struct Session {
    std::unique_ptr<Channel> channel;
    Hello peer;
    bool up = false;
  };

  void accept(std::unique_ptr<Connection> connection, std::string_view initial) {
    // Whoever says no more than the tag must not take the places of peers: in a flood of such connections the one that
    // has been silent for longest goes.
    if (greeting_.size() >= greeting_max) sessions_.erase(greeting_.extract(greeting_.begin()).value());
    const ConnectionId id = ++last_id_;
    greeting_.insert(id);
    Channel* const channel =
        (sessions_[id].channel = std::make_unique<Channel>(loop_, *this, id, std::move(connection), options_.limits))
            .get();
    channel->start(initial);
  }

  void on_hello(Channel& channel, const Hello& peer) override {
    if (auto wrong = check(peer)) return refuse(channel, *wrong);
    const ConnectionId id = channel.id();
    const auto events = events_;
    const std::weak_ptr<const bool> alive = alive_;
    drop_older(peer);
    if (alive.expired() || !sessions_.contains(id)) return;
    const Result<void> admitted = events->up(id, peer);
    if (alive.expired()) return;
    const auto at = sessions_.find(id);  // dropped inside up()
    if (at == sessions_.end()) return;
    if (!admitted) return refuse(channel, admitted.error());
    at->second.up = true;
    at->second.peer = peer;
    greeting_.erase(id);
    channel.accept(options_.local);
  }

  std::optional<Error> check(const Hello& peer) const {
    const Hello& local = options_.local;
    const bool same = local.cluster_id && local.cluster_id == peer.cluster_id;
    const bool unknown = !local.cluster_id || !peer.cluster_id;
    if (!same && !(unknown && options_.admit_unknown_cluster)) {
      return Error(Errc::wrong_cluster, "this member belongs to another cluster, or to none yet");
    }
    if (peer.node_id && peer.node_id == local.node_id) {
      return Error(Errc::wrong_cluster, "the member dialled itself");
    }
    // A second connection of the same run of a peer is harmless: each is told apart by its id. One of an earlier run is
    // a ghost.
    const auto newer = [&](const auto& entry) {
      const Session& other = entry.second;
      return other.up && peer.node_id && other.peer.node_id == peer.node_id &&
             other.peer.incarnation > peer.incarnation;
    };
    if (std::any_of(sessions_.begin(), sessions_.end(), newer)) {
      return Error(Errc::wrong_cluster, "a later incarnation of this node is connected");
    }
    return std::nullopt;
  }

  /// The peer was restarted: what is left of its earlier run is half-open at best.
  void drop_older(const Hello& peer) {
    std::vector<ConnectionId> older;
    for (const auto& [id, session] : sessions_) {
      const bool ghost = session.up && peer.node_id && session.peer.node_id == peer.node_id &&
                         session.peer.incarnation < peer.incarnation;
      if (ghost) older.push_back(id);
    }
    const std::weak_ptr<const bool> alive = alive_;
    for (const ConnectionId id : older) {
      if (alive.expired()) return;
      ended(id, Error(Errc::closed, "the peer was restarted"));
    }
  }

  void refuse(Channel& channel, const Error& error) {
    log_line(options_.log_sink, LogLevel::info, "a connection was refused: {}", error.message());
    channel.refuse(error);
  }

  void on_frame(Channel& channel, ReceivedFrame frame) override {
    const auto events = events_;
    events->frame(channel.id(), std::move(frame));
  }

  void on_broken(Channel& channel, const Error& error) override { ended(channel.id(), error); }

  void ended(ConnectionId id, const Error& why) {
    const auto at = sessions_.find(id);
    if (at == sessions_.end()) return;
    const Error error = why;  // it may live in the channel
    const Session session = std::move(at->second);
    sessions_.erase(at);
    greeting_.erase(id);
    if (!session.up) return;
    const auto events = events_;
    events->down(id, error);
  }

  Loop& loop_;
  Mux& mux_;
  Options options_;
  const std::shared_ptr<const Events> events_;  // a handler may destroy the server while it runs
  const std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);
  std::unordered_map<ConnectionId, Session> sessions_;
  std::set<ConnectionId> greeting_;  // sessions that are not up, oldest first
  ConnectionId last_id_ = 0;
};

LinkServer::LinkServer(Loop& loop, Mux& mux, Options options, Events events)
    : impl_(std::make_unique<Impl>(loop, mux, std::move(options), std::move(events))) {}

LinkServer::~LinkServer() = default;

bool LinkServer::send(ConnectionId connection, Frame frame) {
  return impl_->send(connection, std::move(frame));
}

void LinkServer::drop(ConnectionId connection) {
  impl_->drop(connection);
}

void LinkServer::set_local(const Hello& local) {
  impl_->set_local(local);
}

std::size_t LinkServer::connections() const {
  return impl_->connections();
}

}  // namespace flotilla::net
