#include "net/codec.hpp"

#include <array>
#include <string>
#include <variant>

#include "base/codec.hpp"

namespace flotilla::net {
namespace {

using namespace raft;

// Shorter payloads are copied behind their record's header; longer ones go to the socket from where they are.
constexpr std::size_t in_place_bytes = 4u << 10;

// --- writing -------------------------------------------------------------------------------------------------------

/// Collects the parts of a body: fields and short payloads run together, long payloads stand alone.
class Parts {
 public:
  Encoder fields() { return Encoder(run_); }
  void reserve(std::size_t bytes) { run_.reserve(bytes); }
  void add(const Entry& entry) {
    const std::size_t at = run_.size();
    run_.resize(at + record_header_bytes);
    put_record_header(run_.data() + at, entry);
    if (entry.payload.size() < in_place_bytes) {
      run_.append(entry.payload.view());
      return;
    }
    end_run();
    parts_.push_back(entry.payload);
  }
  std::vector<SharedBytes> take() {
    end_run();
    return std::move(parts_);
  }

 private:
  void end_run() {
    if (!run_.empty()) parts_.emplace_back(std::move(run_));
    run_ = {};
  }
  std::string run_;
  std::vector<SharedBytes> parts_;
};

std::uint8_t flag(bool value) {
  return value ? 1 : 0;
}

void put(Parts& out, const VoteRequest& body) {
  out.fields().u8(flag(body.pre)).u8(flag(body.transfer)).u64(body.last_index.value).u64(body.last_term.value);
}
void put(Parts& out, const VoteReply& body) {
  out.fields().u8(flag(body.pre)).u8(flag(body.granted));
}
void put(Parts& out, const AppendRequest& body) {
  std::size_t bytes = 64;
  for (const Entry& entry : body.entries) {
    bytes += record_header_bytes + (entry.payload.size() < in_place_bytes ? entry.payload.size() : 0);
  }
  out.reserve(bytes);
  out.fields()
      .u64(body.prev_index.value)
      .u64(body.prev_term.value)
      .u64(body.commit_index.value)
      .u32(static_cast<std::uint32_t>(body.entries.size()));
  for (const Entry& entry : body.entries) out.add(entry);
}
void put(Parts& out, const AppendReply& body) {
  out.fields()
      .u8(flag(body.accepted))
      .u64(body.match_index.value)
      .u64(body.rejected_index.value)
      .u64(body.conflict_term.value)
      .u64(body.conflict_index.value)
      .u64(body.last_index.value);
}
void put(Parts& out, const Heartbeat& body) {
  out.fields().u64(body.commit_index.value).u64(body.read_round);
}
void put(Parts& out, const HeartbeatReply& body) {
  out.fields().u64(body.read_round);
}
void put(Parts& out, const ReadIndexRequest& body) {
  out.fields().u64(body.id);
}
void put(Parts& out, const ReadIndexReply& body) {
  out.fields().u64(body.id).u8(flag(body.accepted)).u64(body.read_index.value);
}
void put(Parts&, const TimeoutNow&) {}
void put(Parts& out, const SnapshotRequest& body) {
  out.fields().u64(body.index.value).u64(body.index_term.value).bytes(encode(body.configuration));
}
void put(Parts& out, const SnapshotReply& body) {
  out.fields().u8(flag(body.accepted)).u64(body.match_index.value);
}

// --- reading -------------------------------------------------------------------------------------------------------

/// A decoder that also refuses what no encoder writes.
struct Reader {
  Reader(std::string_view in, const SharedBytes& the_frame) : fields(in), frame(the_frame) {}

  bool flag() {
    const std::uint8_t value = fields.u8();
    ok = ok && value <= 1;
    return value == 1;
  }
  Index index() { return Index{fields.u64()}; }
  Term term() { return Term{fields.u64()}; }

  Decoder fields;
  const SharedBytes& frame;
  bool ok = true;
};

void get(Reader& in, VoteRequest& body) {
  body.pre = in.flag();
  body.transfer = in.flag();
  body.last_index = in.index();
  body.last_term = in.term();
}
void get(Reader& in, VoteReply& body) {
  body.pre = in.flag();
  body.granted = in.flag();
}
void get(Reader& in, AppendRequest& body) {
  body.prev_index = in.index();
  body.prev_term = in.term();
  body.commit_index = in.index();
  const std::uint32_t count = in.fields.u32();
  // The count is checked against the bytes that are here before it reserves anything.
  in.ok = in.ok && count <= in.fields.remaining() / record_header_bytes && body.prev_index.value <= UINT64_MAX - count;
  if (!in.ok) return;
  body.entries.reserve(count);
  Index expected = body.prev_index;
  for (std::uint32_t at = 0; at < count && in.ok; ++at) {
    Entry& entry = body.entries.emplace_back();
    const std::string_view rest = in.fields.rest();
    in.ok = parse_record(in.frame.owner(), rest, rest.size(), entry) == RecordState::whole && entry.index == ++expected;
    if (in.ok) in.fields.raw(record_bytes(entry));
  }
}
void get(Reader& in, AppendReply& body) {
  body.accepted = in.flag();
  body.match_index = in.index();
  body.rejected_index = in.index();
  body.conflict_term = in.term();
  body.conflict_index = in.index();
  body.last_index = in.index();
}
void get(Reader& in, Heartbeat& body) {
  body.commit_index = in.index();
  body.read_round = in.fields.u64();
}
void get(Reader& in, HeartbeatReply& body) {
  body.read_round = in.fields.u64();
}
void get(Reader& in, ReadIndexRequest& body) {
  body.id = in.fields.u64();
}
void get(Reader& in, ReadIndexReply& body) {
  body.id = in.fields.u64();
  body.accepted = in.flag();
  body.read_index = in.index();
}
void get(Reader&, TimeoutNow&) {}
void get(Reader& in, SnapshotRequest& body) {
  body.index = in.index();
  body.index_term = in.term();
  std::optional<Configuration> configuration = decode_configuration(in.fields.bytes());
  in.ok = in.ok && configuration.has_value();
  if (configuration) body.configuration = std::move(*configuration);
}
void get(Reader& in, SnapshotReply& body) {
  body.accepted = in.flag();
  body.match_index = in.index();
}

using Get = void (*)(Reader&, raft::Body&);
template <class Body>
void get_as(Reader& in, raft::Body& body) {
  get(in, body.emplace<Body>());
}
template <class... Bodies>
constexpr std::array<Get, sizeof...(Bodies)> getters_of(const std::variant<Bodies...>*) {
  return {get_as<Bodies>...};
}
constexpr auto getters = getters_of(static_cast<const raft::Body*>(nullptr));

}  // namespace

Frame encode(const raft::Message& message) {
  Parts out;
  out.fields().u64(message.from.value).u64(message.to.value).u64(message.term.value);
  std::visit([&](const auto& body) { put(out, body); }, message.body);
  return Frame{.type = static_cast<std::uint8_t>(message.body.index() + 1), .parts = out.take()};
}

std::optional<raft::Message> decode(const ReceivedFrame& frame) {
  if (frame.type == 0 || frame.type > getters.size()) return std::nullopt;
  Reader in(frame.body.view(), frame.body);
  raft::Message message;
  message.from = NodeId{in.fields.u64()};
  message.to = NodeId{in.fields.u64()};
  message.term = in.term();
  getters[frame.type - 1](in, message.body);
  if (!in.ok || !in.fields.done()) return std::nullopt;
  return message;
}

}  // namespace flotilla::net
