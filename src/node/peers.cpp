#include "node/peers.hpp"

#include <algorithm>

#include "base/log_sink.hpp"
#include "net/codec.hpp"

namespace flotilla::node {
namespace {

constexpr std::ptrdiff_t guests_max = 16;

}  // namespace

Peers::Peers(Loop& loop, net::Transport& transport, net::Mux& mux, Options options, Events events)
    : loop_(loop),
      transport_(transport),
      options_(std::move(options)),
      events_(std::move(events)),
      server_(loop, mux,
              {.tag = net::raft_tag, .local = options_.local, .limits = options_.limits, .log_sink = options_.log_sink},
              {.up = [this](auto connection, const net::Hello& hello) { return admit(connection, hello); },
               .frame = [this](auto connection, net::ReceivedFrame frame) { receive(connection, std::move(frame)); },
               .down = [this](auto connection, const Error&) { lost(connection); }}) {}

void Peers::set_local(const net::Hello& local) {
  options_.local = local;
  server_.set_local(local);
}

void Peers::set_members(const std::vector<Member>& members) {
  for (auto& [id, peer] : peers_) peer.guest = true;
  for (const Member& member : members) {
    if (member.id == options_.local.node_id || member.address.empty()) continue;
    const auto at = peers_.find(member.id);
    if (at == peers_.end()) {
      connect(member, false);
      continue;
    }
    at->second.guest = false;
    if (at->second.address != member.address) {
      at->second.address = member.address;
      at->second.link->set_address(member.address);
    }
  }
  std::erase_if(peers_, [this](const auto& peer) { return peer.second.guest && !is_connected(peer.first); });
}

bool Peers::is_connected(NodeId id) const {
  return std::any_of(accepted_.begin(), accepted_.end(), [id](const auto& accepted) { return accepted.second == id; });
}

void Peers::lost(net::LinkServer::ConnectionId connection) {
  const auto at = accepted_.find(connection);
  if (at == accepted_.end()) return;
  const NodeId id = at->second;
  accepted_.erase(at);
  const auto peer = peers_.find(id);
  if (peer != peers_.end() && peer->second.guest && !is_connected(id)) peers_.erase(peer);
  // Strangers leave nothing behind, however many ids they make up.
  if (!peers_.contains(id) && !is_connected(id)) newest_incarnation_.erase(id);
}

void Peers::connect(const Member& member, bool guest) {
  const NodeId id = member.id;
  net::Link::Options options{.tag = net::raft_tag,
                             .address = member.address,
                             .local = options_.local,
                             .expected = id,
                             .limits = options_.limits,
                             .seed = options_.seed ^ id.value,
                             .log_sink = options_.log_sink};
  net::Link::Events events{.up = [](const net::Hello&) {},
                           .frame = [](net::ReceivedFrame) {},  // a peer answers on its own link to us
                           .down = [this, id](const Error&) { events_.unreachable(id); }};
  peers_[id] = {member.address, std::make_unique<net::Link>(loop_, transport_, std::move(options), std::move(events)),
                guest};
}

void Peers::send(const raft::Message& message) {
  const auto at = peers_.find(message.to);
  if (at != peers_.end() && at->second.link->up()) at->second.link->send(net::encode(message));
}

Result<void> Peers::admit(net::LinkServer::ConnectionId connection, const net::Hello& hello) {
  if (hello.node_id == options_.local.node_id) return fail(Errc::wrong_cluster, "this is the caller itself");
  std::uint64_t& newest = newest_incarnation_[hello.node_id];
  if (hello.incarnation < newest) {
    return fail(Errc::wrong_cluster, "a later incarnation of this node has connected before");
  }
  newest = hello.incarnation;
  accepted_[connection] = hello.node_id;
  const auto guests = std::count_if(peers_.begin(), peers_.end(), [](const auto& peer) { return peer.second.guest; });
  if (!peers_.contains(hello.node_id) && !hello.address.empty() && guests < guests_max) {
    connect({hello.node_id, hello.address, false}, true);
  }
  return {};
}

void Peers::receive(net::LinkServer::ConnectionId connection, net::ReceivedFrame frame) {
  const auto at = accepted_.find(connection);
  if (at == accepted_.end()) return;
  const NodeId id = at->second;
  auto message = net::decode(frame);
  if (!message || message->from != id || message->to != options_.local.node_id) {
    log_line(options_.log_sink, LogLevel::warning, "node {:x} sent a malformed or misdirected message; disconnected",
             id.value);
    lost(connection);
    server_.drop(connection);
    return;
  }
  events_.message(std::move(*message));
}

}  // namespace flotilla::node
