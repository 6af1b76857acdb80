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
  if (sequence != 0) add_deadline(call.deadline, sequence);
  const bool added = all_.emplace(sequence, std::move(call)).second;
  FLOTILLA_ASSERT(added);
  unplaced_.push_back(sequence);
}

void Proposals::add_deadline(Duration deadline, std::uint64_t sequence) {
  constexpr std::size_t stale_allowed = 1024;
  // Calls that ended leave theirs behind; a long timeout must not let them pile up.
  if (deadlines_.size() > 2 * all_.size() + stale_allowed) {
    std::vector<Deadline> live;
    for (const auto& [number, call] : all_) {
      if (number != 0) live.emplace_back(call.deadline, number);
    }
    deadlines_ = decltype(deadlines_)(std::greater<>(), std::move(live));
  }
  deadlines_.emplace(deadline, sequence);
}

void Proposals::place_again() {
  unplaced_.clear();
  later_.clear();
  for (const auto& [sequence, call] : all_) unplaced_.push_back(sequence);
}

std::deque<std::uint64_t> Proposals::sendable() {
  if (session_open_) return std::exchange(unplaced_, {});
  // Only the opening itself (sequence 0): commands of a session that is not open would be refused by every member.
  const auto opening = std::find(unplaced_.begin(), unplaced_.end(), 0);
  if (opening == unplaced_.end()) return {};
  unplaced_.erase(opening);
  return {0};
}

void Proposals::propose(raft::Core& core, std::uint64_t time, const Refuse& refuse) {
  std::deque<std::uint64_t> sending = sendable();
  while (!sending.empty()) {
    const auto at = all_.find(sending.front());
    if (at == all_.end()) {
      sending.pop_front();
      continue;
    }
    Call& call = at->second;
    if (auto error = call.sequence == 0 ? std::nullopt : refuse(call.payload.view())) {
      refused(call.sequence, std::move(*error));
      sending.pop_front();
      continue;
    }
    if (const auto position = core.propose(call.type, call.payload, time)) {
      ++call.attempt;
      ++call.unsettled_copies;
    } else if (position.error() == Errc::overloaded && call.unsettled_copies == 0 && call.sequence != 0) {
      end(call, position.error());
      all_.erase(at);
    } else {
      break;  // not the leader any more, or later: these stay unplaced
    }
    sending.pop_front();
  }
  unplaced_.insert(unplaced_.begin(), sending.begin(), sending.end());
}

void Proposals::forward(Forwarding& forwarding, Duration now) {
  if (!forwarding.up()) return;
  const std::deque<std::uint64_t> sending = sendable();
  std::vector<ForwardedCall> copies;
  std::vector<std::uint64_t> sequences;
  for (const std::uint64_t sequence : sending) {
    const auto at = all_.find(sequence);
    if (at == all_.end()) continue;
    Call& call = at->second;
    const auto remaining = sequence == 0 ? std::chrono::milliseconds(60'000)
                                         : std::chrono::ceil<std::chrono::milliseconds>(call.deadline - now);
    copies.push_back({sequence, ++call.attempt, call.type, remaining, call.payload});
    ++call.unsettled_copies;
    sequences.push_back(sequence);
  }
  const std::size_t sent = forwarding.send(copies);
  for (std::size_t i = sequences.size(); i > sent; --i) {
    Call& call = all_.at(sequences[i - 1]);
    --call.unsettled_copies;
    unplaced_.push_front(sequences[i - 1]);
  }
}

void Proposals::refused(const std::vector<Refusal>& refusals) {
  for (const Refusal& refusal : refusals) {
    const auto at = all_.find(refusal.sequence);
    if (at == all_.end()) continue;
    Call& call = at->second;
    if (call.unsettled_copies > 0) --call.unsettled_copies;
    if (refusal.attempt != call.attempt) continue;  // a newer copy is on its way
    refused(call.sequence, Error(refusal.code, refusal.message));
  }
}

/// The newest copy was refused, or was not sent for this reason.
void Proposals::refused(std::uint64_t sequence, Error error) {
  const auto at = all_.find(sequence);
  Call& call = at->second;
  const auto code = static_cast<Errc>(error.code().value());
  if (passing(code) || sequence == 0 || call.unsettled_copies > 0) {
    later_.push_back(sequence);
  } else {
    end(call, std::move(error));
    all_.erase(at);
  }
}

void Proposals::forget(const std::vector<std::uint64_t>& sequences) {
  for (const std::uint64_t sequence : sequences) all_.erase(sequence);
}

void Proposals::session_opened() {
  session_open_ = true;
  all_.erase(0);
}

void Proposals::tick(Duration now, bool leader_known) {
  unplaced_.insert(unplaced_.end(), later_.begin(), later_.end());
  later_.clear();
  while (!deadlines_.empty() && deadlines_.top().first <= now) {
    const auto at = all_.find(deadlines_.top().second);
    deadlines_.pop();
    if (at == all_.end()) continue;
    Call& call = at->second;
    if (call.unsettled_copies > 0) {
      end(call, Error(Errc::outcome_unknown, "sent, but not seen applied before the deadline: it may yet take effect"));
    } else if (leader_known) {
      end(call, Error(Errc::timeout, "the deadline passed before the command was accepted; it was not applied"));
    } else {
      end(call, Error(Errc::no_leader, "no leader was found before the deadline; the command was not sent"));
    }
    all_.erase(at);
  }
}

void Proposals::end_all(const Error& unsent) {
  for (auto& [sequence, call] : all_) {
    if (sequence == 0) continue;
    if (call.unsettled_copies == 0) {
      end(call, unsent);
    } else {
      end(call, Error(Errc::outcome_unknown,
                      fmt::format("{}; the command was sent before, and may yet take effect", unsent.message())));
    }
  }
  all_.clear();
  unplaced_.clear();
  later_.clear();
}

void Proposals::end(Call& call, Error error) {
  if (auto done = calls_.take(call.sequence)) (*done)(fail(std::move(error)));
}

}  // namespace flotilla::node
