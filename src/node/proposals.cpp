#include "node/proposals.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/assert.hpp"

namespace flotilla::node {
namespace {

/// A refusal that the next attempt may not get: worth waiting for, as long as there is time.
bool passing(Errc code) {
  return code == Errc::not_leader || code == Errc::no_leader || code == Errc::proposal_dropped;
}

}  // namespace

void Proposals::add(Call call) {
  const std::uint64_t sequence = call.sequence;
  FLOTILLA_ASSERT(find(sequence) == nullptr);
  if (sequence == 0) {
    opening_ = std::move(call);
  } else {
    add_deadline(call.deadline, sequence);
    all_.emplace(sequence, std::move(call));
  }
  unplaced_.push_back(sequence);
}

void Proposals::add_deadline(Duration deadline, std::uint64_t sequence) {
  constexpr std::size_t stale_allowed = 1024;
  // Calls that ended leave theirs behind; a long timeout must not let them pile up.
  if (deadlines_.size() > 2 * all_.size() + stale_allowed) {
    std::vector<Deadline> live;
    all_.for_each([&](std::uint64_t number, const Call& call) { live.emplace_back(call.deadline, number); });
    deadlines_ = decltype(deadlines_)(std::greater<>(), std::move(live));
  }
  deadlines_.emplace(deadline, sequence);
}

void Proposals::place_again() {
  unplaced_.clear();
  later_.clear();
  if (opening_) unplaced_.push_back(0);
  all_.for_each([&](std::uint64_t sequence, const Call&) { unplaced_.push_back(sequence); });
}

Proposals::Call* Proposals::find(std::uint64_t sequence) {
  if (sequence == 0) return opening_ ? &*opening_ : nullptr;
  return all_.find(sequence);
}

/// Moves what may be sent to sending_.
void Proposals::take_sendable() {
  sending_.clear();
  if (session_open_) return sending_.swap(unplaced_);
  // Only the opening itself (sequence 0): commands of a session that is not open would be refused by every member.
  if (std::erase(unplaced_, 0) > 0) sending_.push_back(0);
}

/// What is in sending_ from `first` on was not sent.
void Proposals::put_back(std::size_t first) {
  unplaced_.insert(unplaced_.begin(), sending_.begin() + static_cast<std::ptrdiff_t>(first), sending_.end());
  sending_.clear();
}

void Proposals::propose(raft::Core& core, std::uint64_t time, const Refuse& refuse) {
  take_sendable();
  std::size_t at = 0;
  for (; at < sending_.size(); ++at) {
    Call* const call = find(sending_[at]);
    if (call == nullptr) continue;
    if (auto error = call->sequence == 0 ? std::nullopt : refuse(call->payload.view())) {
      refused(call->sequence, std::move(*error));
      continue;
    }
    if (const auto position = core.propose(call->type, call->payload, time)) {
      ++call->attempt;
      ++call->unsettled_copies;
    } else if (position.error() == Errc::overloaded && call->unsettled_copies == 0 && call->sequence != 0) {
      end(*call, position.error());
    } else {
      break;  // not the leader any more, or later: these stay unplaced
    }
  }
  put_back(at);
}

void Proposals::forward(Forwarding& forwarding, Duration now) {
  if (!forwarding.up()) return;
  take_sendable();
  std::erase_if(sending_, [this](std::uint64_t sequence) { return find(sequence) == nullptr; });
  std::vector<ForwardedCall> copies;
  copies.reserve(sending_.size());
  for (const std::uint64_t sequence : sending_) {
    Call& call = *find(sequence);
    const auto remaining = sequence == 0 ? std::chrono::milliseconds(60'000)
                                         : std::chrono::ceil<std::chrono::milliseconds>(call.deadline - now);
    copies.push_back({sequence, ++call.attempt, call.type, remaining, call.payload});
    ++call.unsettled_copies;
  }
  const std::size_t sent = forwarding.send(copies);
  for (std::size_t at = sent; at < sending_.size(); ++at) --find(sending_[at])->unsettled_copies;
  put_back(sent);
}

void Proposals::refused(const std::vector<Refusal>& refusals) {
  for (const Refusal& refusal : refusals) {
    Call* const call = find(refusal.sequence);
    if (call == nullptr) continue;
    if (call->unsettled_copies > 0) --call->unsettled_copies;
    if (refusal.attempt != call->attempt) continue;  // a newer copy is on its way
    refused(call->sequence, Error(refusal.code, refusal.message));
  }
}

/// The newest copy was refused, or was not sent for this reason.
void Proposals::refused(std::uint64_t sequence, Error error) {
  Call& call = *find(sequence);
  const auto code = static_cast<Errc>(error.code().value());
  if (passing(code) || sequence == 0 || call.unsettled_copies > 0) {
    later_.push_back(sequence);
  } else {
    end(call, std::move(error));
  }
}

void Proposals::forget(const std::vector<std::uint64_t>& sequences) {
  for (const std::uint64_t sequence : sequences) all_.erase(sequence);
}

void Proposals::session_opened() {
  session_open_ = true;
  opening_.reset();
}

void Proposals::tick(Duration now, bool leader_known) {
  unplaced_.insert(unplaced_.end(), later_.begin(), later_.end());
  later_.clear();
  while (!deadlines_.empty() && deadlines_.top().first <= now) {
    Call* const call = find(deadlines_.top().second);
    deadlines_.pop();
    if (call == nullptr) continue;
    if (call->unsettled_copies > 0) {
      end(*call,
          Error(Errc::outcome_unknown, "sent, but not seen applied before the deadline: it may yet take effect"));
    } else if (leader_known) {
      end(*call, Error(Errc::timeout, "the deadline passed before the command was accepted; it was not applied"));
    } else {
      end(*call, Error(Errc::no_leader, "no leader was found before the deadline; the command was not sent"));
    }
  }
}

void Proposals::end_all(const Error& unsent) {
  while (!all_.empty()) {
    Call& call = *all_.find(all_.first());
    if (call.unsettled_copies == 0) {
      end(call, unsent);
    } else {
      end(call, Error(Errc::outcome_unknown,
                      fmt::format("{}; the command was sent before, and may yet take effect", unsent.message())));
    }
  }
  opening_.reset();
  unplaced_.clear();
  later_.clear();
}

/// Requires: not the opening.
void Proposals::end(Call& call, Error error) {
  const std::uint64_t sequence = call.sequence;
  FLOTILLA_ASSERT(sequence != 0);
  all_.erase(sequence);
  if (auto done = calls_.take(sequence)) (*done)(fail(std::move(error)));
}

}  // namespace flotilla::node
