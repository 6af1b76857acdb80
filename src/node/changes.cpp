#include "node/changes.hpp"

#include <utility>

#include <fmt/format.h>

#include "base/codec.hpp"

namespace flotilla::node {
namespace {

using Verdict = ChangeAnswer::Verdict;

constexpr std::size_t pending_max = 64;

net::Frame to_frame(std::uint8_t type, std::string body) {
  net::Frame frame{.type = type, .parts = {}};
  frame.parts.emplace_back(std::move(body));
  return frame;
}

Error not_done(bool may_take_effect, Errc otherwise, const Error& reason) {
  if (may_take_effect) {
    return Error(Errc::outcome_unknown, "the change was begun, and is not known to be complete: " + reason.message());
  }
  return Error(otherwise, "nothing was changed: " + reason.message());
}

}  // namespace

net::Frame change_answer_to_frame(std::uint64_t attempt, const ChangeAnswer& answer) {
  std::string body;
  Encoder(body)
      .u64(attempt)
      .u8(static_cast<std::uint8_t>(answer.verdict))
      .u64(answer.position.term.value)
      .u64(answer.position.index.value)
      .u32(static_cast<std::uint32_t>(answer.reason.code().value()))
      .bytes(answer.reason.message());
  return to_frame(change_answer_frame, std::move(body));
}

void Changes::add(Request request) {
  Pending& pending = pending_[++last_id_];
  pending.request = std::move(request);
  if (auto error = refuse_unsent(pending.request.change)) {
    pending.ended.emplace(fail(std::move(*error)));
  } else if (pending_.size() > pending_max) {
    pending.ended.emplace(fail(Errc::overloaded, "too many changes of members are under way; this one was not begun"));
  }
}

void Changes::set_leader(const Member* leader) {
  if (leader == nullptr ? !leader_ : leader_ == *leader) return;
  leader_ = leader == nullptr ? std::nullopt : std::optional(*leader);
  link_.reset();
  link_lost();
}

void Changes::link_lost() {
  for (auto& [id, pending] : pending_) {
    if (pending.stage != Stage::asked) continue;
    pending.may_take_effect = true;
    pending.stage = Stage::waiting;
  }
  if (!pending_.empty()) events_.ready();
}

void Changes::advance(const raft::Core& core, Duration now) {
  const bool leads = core.role() == Role::leader;
  for (auto at = pending_.begin(); at != pending_.end();) {
    Pending& pending = at->second;
    Change& change = pending.request.change;
    if (change.kind == Change::Kind::transfer && !change.id) change.id = core.leader_id();
    if (!pending.asked_in) pending.asked_in = core.term();
    settle(pending, core);
    if (!pending.ended && pending.stage == Stage::waiting && pending.ask_at <= now) ask(at->first, pending, leads, now);
    at = pending.ended ? end(at, *pending.ended) : std::next(at);
  }
  if (pending_.empty()) link_.reset();
}

void Changes::ask(std::uint64_t id, Pending& pending, bool leads, Duration now) {
  if (leads) return answered(id, pending, events_.carry_out(pending.request.change), now);
  if (!leader_ || leader_->id == options_.local || leader_->address.empty()) return;
  if (!link_) link_ = events_.connect(*leader_);
  std::string body;
  Encoder(body).u64(last_attempt_ + 1).raw(encode(pending.request.change));
  if (!link_->send(to_frame(change_frame, std::move(body)))) return;
  pending.attempt = ++last_attempt_;
  pending.stage = Stage::asked;
}

void Changes::receive(const net::ReceivedFrame& frame, Duration now) {
  Decoder in(frame.body.view());
  const std::uint64_t attempt = in.u64();
  const std::uint8_t verdict = in.u8();
  ChangeAnswer answer;
  answer.verdict = Verdict{verdict};
  answer.position = {Term{in.u64()}, Index{in.u64()}};
  const auto code = static_cast<Errc>(in.u32());
  answer.reason = Error(code, std::string(in.bytes()));
  if (frame.type != change_answer_frame || !in.done() || verdict > static_cast<std::uint8_t>(Verdict::refused)) return;
  for (auto& [id, pending] : pending_) {
    if (pending.stage == Stage::asked && pending.attempt == attempt) answered(id, pending, answer, now);
  }
  events_.ready();
}

void Changes::answered(std::uint64_t id, Pending& pending, const ChangeAnswer& answer, Duration now) {
  pending.stage = Stage::waiting;
  pending.ask_at = now + options_.ask_interval;
  pending.reason = answer.reason;
  switch (answer.verdict) {
    case Verdict::done: return confirm(id, pending);
    case Verdict::appended:
      pending.may_take_effect = true;
      pending.position = answer.position;
      pending.stage = Stage::appended;
      return;
    case Verdict::begun: pending.may_take_effect = true; return;
    case Verdict::later: return;
    case Verdict::refused:
      pending.ended =
          fail(not_done(pending.may_take_effect, static_cast<Errc>(answer.reason.code().value()), answer.reason));
  }
}

/// A leader that was just deposed may not know better.
void Changes::confirm(std::uint64_t id, Pending& pending) {
  pending.stage = Stage::confirming;
  pending.reason = Error(Errc::timeout, "no majority confirmed that it is so already");
  events_.barrier(pending.request.deadline, [this, id](bool reached) {
    const auto at = pending_.find(id);
    if (at == pending_.end() || at->second.stage != Stage::confirming) return;
    at->second.stage = reached ? Stage::confirmed : Stage::waiting;
    events_.ready();
  });
}

void Changes::settle(Pending& pending, const raft::Core& core) {
  if (pending.ended) return;
  const bool transfers = pending.request.change.kind == Change::Kind::transfer;
  if (transfers ? is_handed_over(pending, core) : is_committed(pending, core)) {
    pending.ended.emplace();
  } else if (pending.stage == Stage::confirmed) {
    pending.stage = Stage::waiting;  // the leader that said so was wrong, or it has changed since
  }
}

bool Changes::is_handed_over(const Pending& pending, const raft::Core& core) {
  const Change& change = pending.request.change;
  const NodeId leader = core.leader_id();
  if (!leader || (change.to ? leader != change.to : leader == change.id)) return false;
  return core.term() > pending.asked_in || pending.stage == Stage::confirmed;
}

bool Changes::is_committed(Pending& pending, const raft::Core& core) {
  const bool in_force = core.configuration_index() <= core.commit_index() && !core.configuration().joint();
  if (pending.stage == Stage::appended && core.commit_index() >= pending.position.index) {
    if (core.term_at(pending.position.index) == pending.position.term) return in_force;
    pending.stage = Stage::waiting;  // another leader's entry stands there
    return false;
  }
  return pending.stage == Stage::confirmed && in_force && is_done(pending.request.change, core.configuration().members);
}

void Changes::tick(Duration now, bool leader_known) {
  for (auto at = pending_.begin(); at != pending_.end();) {
    Pending& pending = at->second;
    if (pending.request.deadline > now) {
      ++at;
      continue;
    }
    const bool unknown = pending.may_take_effect || pending.stage == Stage::asked;
    at = end(at, fail(not_done(unknown, leader_known ? Errc::timeout : Errc::no_leader, pending.reason)));
  }
}

void Changes::end_removed() {
  for (auto at = pending_.begin(); at != pending_.end();) {
    const Change& change = at->second.request.change;
    const bool wanted = change.kind == Change::Kind::remove && change.id == options_.local;
    at = wanted ? end(at, {}) : std::next(at);
  }
}

void Changes::end_all(const Error& unsent) {
  link_.reset();
  for (auto at = pending_.begin(); at != pending_.end();) {
    const Pending& pending = at->second;
    const bool unknown = pending.may_take_effect || pending.stage == Stage::asked;
    const int code = unsent.code().value();
    at = end(at, fail(not_done(unknown, static_cast<Errc>(code), unsent)));
  }
}

/// What a function of the caller throws is dropped: others wait behind it.
Changes::Pendings::iterator Changes::end(Pendings::iterator at, Result<void> result) {
  const auto done = std::move(at->second.request.done);
  const auto next = pending_.erase(at);
  try {
    done(std::move(result));
  } catch (...) {
  }
  return next;
}

}  // namespace flotilla::node
