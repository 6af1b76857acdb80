// The consensus core alone, for each entry: what the loop thread of a leader of three and of a follower pays.
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <benchmark/benchmark.h>

#include "raft/core.hpp"

namespace {

using namespace flotilla;
using namespace flotilla::raft;

const SharedBytes payload(std::string(130, 'x'));

/// Member 1 of three. Keeps little in memory, so that a run is soon like every later one.
Core member() {
  Restored restored;
  restored.hard_state.term = Term{1};
  restored.base_index = restored.commit_index = restored.applied_index = restored.configuration_index = Index{1};
  restored.base_term = Term{1};
  restored.first_index = Index{2};
  for (const std::uint64_t id : {1, 2, 3}) restored.configuration.members.push_back({NodeId{id}, "", true});
  CoreOptions options{.id = NodeId{1}};
  options.tail_bytes_max = 1u << 20;
  return Core(options, std::move(restored));
}

/// What the other two answer at once; nothing to what is no question.
std::optional<Body> answer(const Message& message) {
  if (const auto* request = std::get_if<AppendRequest>(&message.body))
    return AppendReply{.accepted = true, .match_index = request->prev_index + request->entries.size()};
  if (const auto* request = std::get_if<VoteRequest>(&message.body))
    return VoteReply{.pre = request->pre, .granted = true};
  return std::nullopt;
}

/// Takes everything: it is durable and applied at once, and `messages` collects what leaves.
void take_all(Core& core, std::vector<Message>& messages) {
  while (core.has_ready()) {
    Ready ready = core.take_ready();
    for (auto* some : {&ready.messages, &ready.messages_after_sync})
      for (Message& message : *some) messages.push_back(std::move(message));
    const bool wrote = !ready.entries.empty();
    core.persisted(ready.sequence, wrote ? ready.entries.back().term : Term{},
                   wrote ? ready.entries.back().index : Index{});
    if (!ready.committed.empty()) core.applied(ready.committed.back().index);
  }
}

void settle(Core& core) {
  std::vector<Message> messages;
  for (take_all(core, messages); !messages.empty(); take_all(core, messages)) {
    for (const Message& message : std::exchange(messages, {})) {
      if (auto body = answer(message)) core.step({message.to, message.from, message.term, std::move(*body)});
    }
  }
}

/// So many proposals in a turn, replicated, answered by both, committed and announced.
void core_leader(benchmark::State& state) {
  Core core = member();
  core.campaign();
  settle(core);
  if (core.role() != Role::leader) return state.SkipWithError("not elected");
  std::uint64_t time = 0;
  for (auto _ : state) {
    for (std::int64_t i = 0; i < state.range(0); ++i) {
      if (!core.propose(EntryType::command, payload, ++time)) return state.SkipWithError("refused");
    }
    settle(core);
  }
  if (core.commit_index() != core.last_index()) state.SkipWithError("not committed");
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(core_leader)->Arg(1)->Arg(64);

/// Appends of so many entries, each with the commit index of the one before.
void core_follower(benchmark::State& state) {
  constexpr std::size_t made_at_once = 256;
  const auto entries = static_cast<std::uint64_t>(state.range(0));
  Core core = member();
  std::vector<Message> requests;
  std::size_t used = 0;
  Index last{1};
  const auto make = [&] {
    requests.clear();
    used = 0;
    while (requests.size() < made_at_once) {
      AppendRequest request{.prev_index = last, .prev_term = Term{1}, .commit_index = last};
      for (std::uint64_t i = 0; i < entries; ++i) {
        last = last.next();
        Entry& entry = request.entries.emplace_back();
        entry.term = Term{1};
        entry.index = last;
        entry.type = EntryType::command;
        entry.payload = payload;
        seal(entry);
      }
      requests.push_back({NodeId{2}, NodeId{1}, Term{1}, std::move(request)});
    }
  };
  std::vector<Message> answers;
  for (auto _ : state) {
    if (used == requests.size()) {
      state.PauseTiming();
      make();
      state.ResumeTiming();
    }
    core.step(std::move(requests[used++]));
    take_all(core, answers);
    answers.clear();
  }
  if (core.last_index().value != 1 + static_cast<std::uint64_t>(state.iterations()) * entries)
    state.SkipWithError("not accepted");
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(core_follower)->Arg(1)->Arg(64);

}  // namespace
