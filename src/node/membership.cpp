#include "node/membership.hpp"

#include "base/codec.hpp"
#include "base/log_sink.hpp"
#include "node/changes.hpp"

namespace flotilla::node {
namespace {

constexpr std::uint8_t join_frame = 1;
constexpr std::uint8_t answer_frame = 2;
constexpr std::uint8_t stays_learner = 1;  // a flag of join
constexpr unsigned redirects_max = 4;      ///< in a row, before the next configured address is tried
constexpr Duration ask_again = std::chrono::milliseconds(500);
constexpr std::size_t address_bytes_max = 300;

net::Frame to_frame(std::uint8_t type, std::string body) {
  net::Frame frame{.type = type, .parts = {}};
  frame.parts.emplace_back(std::move(body));
  return frame;
}

}  // namespace

Joiner::Joiner(Loop& loop, net::Transport& transport, Options options, Events events)
    : loop_(loop), transport_(transport), options_(std::move(options)), events_(std::move(events)) {
  ask_next(Duration(0));
}

Joiner::~Joiner() {
  if (timer_ != 0) loop_.cancel(timer_);
}

void Joiner::set_local(const net::Hello& local) {
  options_.local = local;
}

void Joiner::ask_next(Duration delay) {
  if (timer_ != 0) loop_.cancel(timer_);
  timer_ = loop_.after(delay, [this] {
    timer_ = 0;
    if (!redirect_.empty() && redirects_ < redirects_max) {
      ++redirects_;
      ask(std::exchange(redirect_, {}));
      return;
    }
    redirects_ = 0;
    redirect_.clear();
    if (options_.addresses.empty()) return;
    ask(options_.addresses[next_++ % options_.addresses.size()]);
  });
}

void Joiner::ask(const Address& address) {
  net::Link::Options options{.tag = net::admin_tag,
                             .address = address,
                             .local = options_.local,
                             .limits = options_.limits,
                             .seed = options_.seed,
                             .log_sink = options_.log_sink};
  net::Link::Events events{.up =
                               [this](const net::Hello&) {
                                 std::string body;
                                 Encoder(body)
                                     .u64(options_.local.node_id.value)
                                     .u8(options_.as_learner ? stays_learner : 0)
                                     .bytes(options_.local.address);
                                 link_->send(to_frame(join_frame, std::move(body)));
                                 ask_next(std::chrono::seconds(2));  // unless an answer comes first
                               },
                           .frame = [this](net::ReceivedFrame frame) { receive(frame); },
                           .down =
                               [this, address](const Error& error) {
                                 log_line(options_.log_sink, LogLevel::info, "asking {} to be admitted failed: {}",
                                          address, error.message());
                                 ask_next(ask_again);
                               }};
  link_ = std::make_unique<net::Link>(loop_, transport_, std::move(options), std::move(events));
}

void Joiner::receive(const net::ReceivedFrame& frame) {
  Decoder in(frame.body.view());
  const auto code = static_cast<Errc>(in.u32());
  const ClusterId cluster_id{in.u64(), in.u64()};
  const Address leader(in.bytes());
  const std::string_view message = in.bytes();
  if (frame.type != answer_frame || !in.done()) return;
  if (code == Errc::removed) return events_.removed(Error(Errc::removed, std::string(message)));
  if (code == Errc{}) {
    events_.admitted(cluster_id);
    ask_next(std::chrono::seconds(2));  // the admission may be lost with its leader
    return;
  }
  log_line(options_.log_sink, LogLevel::info, "not admitted yet: {}", message);
  redirect_ = leader;
  ask_next(leader.empty() ? ask_again : Duration(0));
}

Admission::Admission(Loop& loop, net::Mux& mux, Options options, Events events)
    : events_(std::move(events)),
      server_(loop, mux,
              {.tag = net::admin_tag,
               .local = options.local,
               .admit_unknown_cluster = true,
               .limits = options.limits,
               .log_sink = options.log_sink},
              {.up = [this](auto connection, const net::Hello& peer) -> Result<void> {
                 peers_[connection] = {peer.node_id, !peer.cluster_id};
                 return {};
               },
               .frame = [this](auto connection, net::ReceivedFrame frame) { receive(connection, frame); },
               .down = [this](auto connection, const Error&) { peers_.erase(connection); }}) {}

void Admission::receive(net::LinkServer::ConnectionId connection, const net::ReceivedFrame& frame) {
  std::optional<net::Frame> answer;
  if (frame.type == join_frame) answer = answer_join(connection, frame);
  if (frame.type == change_frame) answer = answer_change(connection, frame);
  if (answer && server_.send(connection, std::move(*answer))) return;
  peers_.erase(connection);
  server_.drop(connection);
}

std::optional<net::Frame> Admission::answer_join(net::LinkServer::ConnectionId connection,
                                                 const net::ReceivedFrame& frame) {
  Decoder in(frame.body.view());
  Member member;
  member.id = NodeId{in.u64()};
  const std::uint8_t flags = in.u8();
  member.address = Address(in.bytes());
  member.joining = flags != stays_learner;
  if (!in.done() || flags > stays_learner || !member.id || member.address.empty()) return std::nullopt;
  if (member.address.size() > address_bytes_max) return std::nullopt;
  const Peer& peer = peers_[connection];
  if (member.id != peer.id) return std::nullopt;  // for nobody but itself
  const JoinAnswer answer = events_.join(member, peer.stranger);
  std::string body;
  Encoder(body)
      .u32(answer.refused ? static_cast<std::uint32_t>(answer.refused->code().value()) : 0)
      .u64(answer.cluster_id.high)
      .u64(answer.cluster_id.low)
      .bytes(answer.leader)
      .bytes(answer.refused ? answer.refused->message() : std::string());
  return to_frame(answer_frame, std::move(body));
}

std::optional<net::Frame> Admission::answer_change(net::LinkServer::ConnectionId connection,
                                                   const net::ReceivedFrame& frame) {
  Decoder in(frame.body.view());
  const std::uint64_t attempt = in.u64();
  if (!in.ok() || peers_[connection].stranger) return std::nullopt;
  const auto change = decode_change(frame.body.view().substr(sizeof attempt));
  if (!change) return std::nullopt;
  return change_answer_to_frame(attempt, events_.change(*change));
}

}  // namespace flotilla::node
