#include "state/sessions.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "base/codec.hpp"

namespace flotilla::state {
namespace {

constexpr auto full_code = static_cast<std::uint16_t>(Errc::session_full);
constexpr std::size_t result_header_bytes = 8 + 2 + 4;

bool sequence_below(const StoredResult& result, std::uint64_t sequence) {
  return result.sequence < sequence;
}

bool contains(const raft::Configuration& configuration, NodeId id) {
  const auto is_it = [id](const Member& member) { return member.id == id; };
  return std::ranges::any_of(configuration.members, is_it) || std::ranges::any_of(configuration.outgoing, is_it);
}

}  // namespace

Result<Bytes> StoredResult::result() const {
  if (code == 0) return bytes;
  const auto errc = static_cast<Errc>(code);
  if (bytes.empty()) return fail(Error(errc));
  return fail(errc, bytes);
}

const StoredResult* Session::find(std::uint64_t sequence) const {
  const auto at = std::lower_bound(results.begin(), results.end(), sequence, sequence_below);
  return at != results.end() && at->sequence == sequence ? &*at : nullptr;
}

void Session::store(StoredResult result) {
  FLOTILLA_ASSERT(result.sequence >= acknowledged_below);
  if (result.code != full_code) {
    ++count;
    bytes += result.bytes.size();
  }
  // Nearly always at the end: calls reach the log in the order of their numbers unless one is sent again.
  const auto at = std::lower_bound(results.begin(), results.end(), result.sequence, sequence_below);
  FLOTILLA_ASSERT(at == results.end() || at->sequence != result.sequence);
  results.insert(static_cast<std::size_t>(at - results.begin()), std::move(result));
}

void Session::acknowledge(std::uint64_t below) {
  FLOTILLA_ASSERT(below > acknowledged_below);
  acknowledged_below = below;
  while (!results.empty() && results.front().sequence < acknowledged_below) {
    if (results.front().code != full_code) {
      FLOTILLA_ASSERT(count > 0 && bytes >= results.front().bytes.size());
      --count;
      bytes -= results.front().bytes.size();
    }
    results.pop_front();
  }
}

std::string encode(const Session& session) {
  std::string out;
  out.reserve(8 + 8 + 8 + 4 + session.results.size() * result_header_bytes + session.bytes);
  Encoder encoder(out);
  encoder.u64(session.node_id.value).u64(session.incarnation).u64(session.acknowledged_below);
  encoder.u32(static_cast<std::uint32_t>(session.results.size()));
  for (const StoredResult& result : session.results) {
    encoder.u64(result.sequence).u16(result.code).bytes(result.bytes);
  }
  return out;
}

std::optional<Session> decode_session_row(std::string_view bytes) {
  Decoder in(bytes);
  Session session;
  session.node_id.value = in.u64();
  session.incarnation = in.u64();
  session.acknowledged_below = in.u64();
  const std::size_t count = in.u32();
  if (!in.ok() || count > in.remaining() / result_header_bytes) return std::nullopt;
  std::uint64_t at_least = session.acknowledged_below;
  for (std::size_t i = 0; i < count; ++i) {
    StoredResult result;
    result.sequence = in.u64();
    result.code = in.u16();
    result.bytes = in.bytes();
    if (!in.ok() || result.sequence < at_least) return std::nullopt;
    at_least = result.sequence + 1;
    session.store(std::move(result));
  }
  if (!in.done()) return std::nullopt;
  return session;
}

bool Sessions::load(const Rows& rows, int& code) {
  bool whole = true;
  code = rows.each(session_prefix, [&](std::string_view key, std::string_view value) {
    const auto id = id_of_key(key, session_prefix);
    auto session = decode_session_row(value);
    whole = id && session;
    if (whole) sessions_.insert_or_assign(*id, std::move(*session));
    return whole;
  });
  if (code != 0 || !whole) return whole;
  code = rows.each(node_prefix, [&](std::string_view key, std::string_view value) {
    const auto id = id_of_key(key, node_prefix);
    const auto node = decode_node(value);
    whole = id && node;
    if (whole) nodes_.insert_or_assign(*id, *node);
    return whole;
  });
  return whole;
}

const Session* Sessions::find(std::uint64_t session) const {
  const auto at = sessions_.find(session);
  return at == sessions_.end() ? nullptr : &at->second;
}

Session* Sessions::find(std::uint64_t session) {
  const auto at = sessions_.find(session);
  return at == sessions_.end() ? nullptr : &at->second;
}

void Sessions::end(std::uint64_t session) {
  if (sessions_.erase(session) > 0) changed_.insert(session);
}

Result<Bytes> Sessions::open(const SessionPayload& payload) {
  const auto at = nodes_.find(payload.node_id.value);
  if (at != nodes_.end()) {
    // A second copy of the entry that opened it: the answer is the same.
    const NodeRow& newest = at->second;
    if (newest == NodeRow::removed()) return fail(Errc::proposal_dropped, "the node was removed from the cluster");
    const bool again = newest.incarnation == payload.incarnation && newest.session == payload.session;
    if (again && sessions_.contains(payload.session)) return Bytes();
    if (payload.incarnation <= newest.incarnation) {
      return fail(Errc::proposal_dropped, fmt::format("incarnation {} of the node is not above the recorded {}",
                                                      payload.incarnation, newest.incarnation));
    }
  }
  if (payload.session == 0 || sessions_.contains(payload.session)) {
    return fail(Errc::proposal_dropped, "the session's name is taken");
  }
  if (at != nodes_.end()) end(at->second.session);
  Session session;
  session.node_id = payload.node_id;
  session.incarnation = payload.incarnation;
  sessions_.emplace(payload.session, std::move(session));
  nodes_[payload.node_id.value] = {payload.incarnation, payload.session, payload.commands};
  changed_.insert(payload.session);
  changed_nodes_.insert(payload.node_id.value);
  return Bytes();
}

void Sessions::end_removed(const raft::Configuration& before, const raft::Configuration& after) {
  const auto end_if_gone = [&](const Member& member) {
    if (contains(after, member.id)) return;
    if (const auto at = nodes_.find(member.id.value); at != nodes_.end()) end(at->second.session);
    nodes_[member.id.value] = NodeRow::removed();
    changed_nodes_.insert(member.id.value);
  };
  std::ranges::for_each(before.members, end_if_gone);
  std::ranges::for_each(before.outgoing, end_if_gone);
}

Nodes Sessions::nodes() const {
  Nodes known;
  for (const auto& [id, newest] : nodes_) {
    if (newest == NodeRow::removed()) {
      known.removed.insert(NodeId{id});
    } else {
      known.commands.emplace(NodeId{id}, newest.commands);
    }
  }
  return known;
}

std::optional<Result<Bytes>> Sessions::admit(const CommandPayload& command) {
  if (command.call.session == 0) return std::nullopt;
  Session* const session = find(command.call.session);
  if (session == nullptr) return fail(Errc::proposal_dropped, "the call's session is not open");
  if (command.acknowledged_below > session->acknowledged_below) {  // a late copy carries an older one
    session->acknowledge(command.acknowledged_below);
    changed_.insert(command.call.session);
  }
  if (command.call.sequence < session->acknowledged_below) {
    return fail(Errc::proposal_dropped, "the call was acknowledged already");
  }
  if (const StoredResult* const seen = session->find(command.call.sequence)) return seen->result();
  if (session->count >= results_max || session->bytes >= result_bytes_max) return refuse_full(command.call);
  return std::nullopt;
}

bool Sessions::fits(std::uint64_t session, std::size_t bytes) const {
  if (session == 0) return true;
  const auto at = sessions_.find(session);
  FLOTILLA_ASSERT(at != sessions_.end());
  FLOTILLA_ASSERT(at->second.bytes <= result_bytes_max);
  return bytes <= result_bytes_max - at->second.bytes;
}

void Sessions::store(const CallId& call, const Result<Bytes>& result, bool replicated_text) {
  if (call.session == 0) return;
  Session* const session = find(call.session);
  FLOTILLA_ASSERT(session != nullptr);
  StoredResult stored;
  stored.sequence = call.sequence;
  if (result) {
    stored.bytes = *result;
  } else {
    stored.code = static_cast<std::uint16_t>(result.error().code().value());
    if (replicated_text) stored.bytes = result.error().message();
  }
  if (session->bytes + stored.bytes.size() > result_bytes_max) {
    FLOTILLA_ASSERT(!result);
    stored.bytes.clear();
  }
  session->store(std::move(stored));
  changed_.insert(call.session);
}

Result<Bytes> Sessions::refuse_full(const CallId& call) {
  // Remembered, because a caller that was refused is told that the call will never take effect: another copy of it,
  // behind an acknowledgement that makes room, must be refused as well.
  Session* const session = find(call.session);
  FLOTILLA_ASSERT(session != nullptr);
  if (session->results.size() >= answers_max) {
    end(call.session);
  } else {
    session->store({call.sequence, full_code, {}});
    changed_.insert(call.session);
  }
  return fail(Error(Errc::session_full));
}

int Sessions::write(const Rows& rows) const {
  for (const std::uint64_t id : changed_) {
    const auto at = sessions_.find(id);
    const int code =
        at == sessions_.end() ? rows.remove(session_key(id)) : rows.put(session_key(id), encode(at->second));
    if (code != 0) return code;
  }
  for (const std::uint64_t id : changed_nodes_) {
    const int code = rows.put(node_key(NodeId{id}), encode(nodes_.at(id)));
    if (code != 0) return code;
  }
  return 0;
}

bool Sessions::roll_back(const Rows& rows, int& code) {
  for (const std::uint64_t id : changed_) {
    sessions_.erase(id);
    std::string_view bytes;
    code = rows.get(session_key(id), bytes);
    if (code == MDB_NOTFOUND) continue;
    if (code != 0) return true;
    auto session = decode_session_row(bytes);
    if (!session) return false;
    sessions_.emplace(id, std::move(*session));
  }
  for (const std::uint64_t id : changed_nodes_) {
    nodes_.erase(id);
    std::string_view bytes;
    code = rows.get(node_key(NodeId{id}), bytes);
    if (code == MDB_NOTFOUND) continue;
    if (code != 0) return true;
    const auto node = decode_node(bytes);
    if (!node) return false;
    nodes_.emplace(id, *node);
  }
  code = 0;
  committed();
  return true;
}

}  // namespace flotilla::state
