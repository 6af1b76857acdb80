#include "node/forwarding.hpp"

#include <algorithm>
#include <optional>

#include "base/codec.hpp"
#include "base/log_sink.hpp"

namespace flotilla::node {
namespace {

constexpr std::uint8_t calls_frame = 1;
constexpr std::uint8_t refusals_frame = 2;
constexpr std::size_t call_header_bytes = 8 + 8 + 1 + 4 + 4;
constexpr std::size_t frame_calls_max = 1024;
constexpr std::size_t frame_bytes_wanted = 1u << 20;  ///< a frame is closed once it is as large
constexpr std::size_t in_place_bytes = 4096;          ///< payloads from here on are sent without a copy

void put_call(std::string& out, const ForwardedCall& call) {
  Encoder(out)
      .u64(call.sequence)
      .u64(call.attempt)
      .u8(static_cast<std::uint8_t>(call.type))
      .u32(static_cast<std::uint32_t>(std::clamp<std::int64_t>(call.remaining.count(), 0, UINT32_MAX)))
      .u32(static_cast<std::uint32_t>(call.payload.size()));
}

net::Frame calls_to_frame(const ForwardedCall* calls, std::size_t count) {
  net::Frame frame{.type = calls_frame, .parts = {}};
  std::string head;
  Encoder(head).u32(static_cast<std::uint32_t>(count));
  for (std::size_t i = 0; i < count; ++i) {
    put_call(head, calls[i]);
    if (calls[i].payload.size() < in_place_bytes) {
      head.append(calls[i].payload.view());
    } else {
      frame.parts.emplace_back(std::exchange(head, {}));
      frame.parts.push_back(calls[i].payload);
    }
  }
  if (!head.empty()) frame.parts.emplace_back(std::move(head));
  return frame;
}

std::optional<std::vector<ForwardedCall>> calls_from_frame(const net::ReceivedFrame& frame) {
  Decoder in(frame.body.view());
  const std::uint32_t count = in.u32();
  if (count > frame_calls_max || count > in.remaining() / call_header_bytes) return std::nullopt;
  std::vector<ForwardedCall> calls(count);
  for (ForwardedCall& call : calls) {
    call.sequence = in.u64();
    call.attempt = in.u64();
    const std::uint8_t type = in.u8();
    call.remaining = std::chrono::milliseconds(in.u32());
    const std::string_view payload = in.bytes();
    if (!in.ok()) return std::nullopt;
    call.type = static_cast<raft::EntryType>(type);
    if (call.type != raft::EntryType::command && call.type != raft::EntryType::session) return std::nullopt;
    call.payload = frame.body.slice(static_cast<std::size_t>(payload.data() - frame.body.data()), payload.size());
  }
  if (!in.done()) return std::nullopt;
  return calls;
}

net::Frame refusals_to_frame(const std::vector<Refusal>& refusals) {
  std::string body;
  Encoder out(body);
  out.u32(static_cast<std::uint32_t>(refusals.size()));
  for (const Refusal& refusal : refusals) {
    out.u64(refusal.sequence).u64(refusal.attempt).u32(static_cast<std::uint32_t>(refusal.code)).bytes(refusal.message);
  }
  net::Frame frame{.type = refusals_frame, .parts = {}};
  frame.parts.emplace_back(std::move(body));
  return frame;
}

std::optional<std::vector<Refusal>> refusals_from_frame(const net::ReceivedFrame& frame) {
  Decoder in(frame.body.view());
  const std::uint32_t count = in.u32();
  if (count > frame_calls_max) return std::nullopt;
  std::vector<Refusal> refusals;
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
    Refusal refusal;
    refusal.sequence = in.u64();
    refusal.attempt = in.u64();
    refusal.code = static_cast<Errc>(in.u32());
    refusal.message = in.bytes();
    refusals.push_back(std::move(refusal));
  }
  if (!in.done()) return std::nullopt;
  return refusals;
}

}  // namespace

Forwarding::Forwarding(Loop& loop, net::Transport& transport, net::Mux& mux, Options options, Events events)
    : loop_(loop),
      transport_(transport),
      options_(std::move(options)),
      events_(std::move(events)),
      server_(
          loop, mux,
          {.tag = net::forward_tag, .local = options_.local, .limits = options_.limits, .log_sink = options_.log_sink},
          {.up = [](auto, const net::Hello&) -> Result<void> { return {}; },
           .frame = [this](auto connection, net::ReceivedFrame frame) { receive_calls(connection, frame); },
           .down = [](auto, const Error&) {}}) {}

void Forwarding::set_local(const net::Hello& local) {
  options_.local = local;
  server_.set_local(local);
}

void Forwarding::set_leader(const Member* leader) {
  const bool elsewhere = leader != nullptr && leader->id != options_.local.node_id && !leader->address.empty();
  const NodeId id = elsewhere ? leader->id : NodeId{};
  if (id == leader_id_ && (!elsewhere || leader->address == leader_address_)) return;
  leader_id_ = id;
  leader_address_ = elsewhere ? leader->address : Address{};
  link_.reset();
  if (!elsewhere) return;
  net::Link::Options options{.tag = net::forward_tag,
                             .address = leader_address_,
                             .local = options_.local,
                             .expected = leader_id_,
                             .limits = options_.limits,
                             .seed = options_.seed ^ (leader_id_.value << 1),
                             .log_sink = options_.log_sink};
  net::Link::Events events{.up = [this](const net::Hello&) { events_.link(true); },
                           .frame = [this](net::ReceivedFrame frame) { receive_refusals(frame); },
                           .down = [this](const Error&) { events_.link(false); }};
  link_ = std::make_unique<net::Link>(loop_, transport_, std::move(options), std::move(events));
}

std::size_t Forwarding::send(const std::vector<ForwardedCall>& calls) {
  std::size_t sent = 0;
  while (sent < calls.size() && up()) {
    std::size_t count = 0;
    std::size_t bytes = 0;
    while (sent + count < calls.size() && count < frame_calls_max && bytes < frame_bytes_wanted) {
      bytes += call_header_bytes + calls[sent + count].payload.size();
      ++count;
    }
    if (!link_->send(calls_to_frame(calls.data() + sent, count))) break;
    sent += count;
  }
  return sent;
}

void Forwarding::receive_calls(net::LinkServer::ConnectionId connection, const net::ReceivedFrame& frame) {
  auto calls = frame.type == calls_frame ? calls_from_frame(frame) : std::nullopt;
  if (!calls) {
    log_line(options_.log_sink, LogLevel::warning, "a malformed forwarding frame; disconnected its sender");
    server_.drop(connection);
    return;
  }
  const std::vector<Refusal> refusals = events_.calls(std::move(*calls));
  if (!refusals.empty() && !server_.send(connection, refusals_to_frame(refusals))) server_.drop(connection);
}

void Forwarding::receive_refusals(const net::ReceivedFrame& frame) {
  auto refusals = frame.type == refusals_frame ? refusals_from_frame(frame) : std::nullopt;
  if (refusals) events_.refused(std::move(*refusals));
}

}  // namespace flotilla::node
