#include "node/reads.hpp"

#include <algorithm>
#include <iterator>

namespace flotilla::node {
namespace {

/// What a function of the caller throws is dropped: others wait behind it.
void end(Reads::Barrier& barrier, Result<Index> result) {
  try {
    barrier.done(std::move(result));
  } catch (...) {
  }
}

template <class Barriers>
void end_late(Barriers& barriers, Duration now, const Error& error) {
  const auto late = std::stable_partition(barriers.begin(), barriers.end(),
                                          [&](const Reads::Barrier& barrier) { return barrier.deadline > now; });
  std::vector<Reads::Barrier> ended(std::make_move_iterator(late), std::make_move_iterator(barriers.end()));
  barriers.erase(late, barriers.end());
  for (Reads::Barrier& barrier : ended) end(barrier, fail(error));
}

}  // namespace

void Reads::add(Barrier barrier, Index applied_index) {
  if (!barrier.at_least) {
    gathering_.push_back(std::move(barrier));
  } else if (barrier.at_least <= applied_index) {
    end(barrier, applied_index);
  } else {
    const Index index = barrier.at_least;
    waiting_.emplace(index, std::move(barrier));
  }
}

void Reads::request(raft::Core& core) {
  if (gathering_.empty()) return;
  requested_[++last_id_] = std::exchange(gathering_, {});
  core.request_read(last_id_);
}

void Reads::answer(const raft::ReadState& state, Index applied_index) {
  const auto at = requested_.find(state.id);
  if (at == requested_.end()) return;
  std::vector<Barrier> barriers = std::move(at->second);
  requested_.erase(at);
  if (!state.read_index) {
    std::move(barriers.begin(), barriers.end(), std::back_inserter(unanswered_));
    return;
  }
  for (Barrier& barrier : barriers) {
    if (*state.read_index <= applied_index) {
      end(barrier, applied_index);
    } else {
      waiting_.emplace(*state.read_index, std::move(barrier));
    }
  }
}

void Reads::applied(Index applied_index) {
  while (!waiting_.empty() && waiting_.begin()->first <= applied_index) {
    auto first = waiting_.extract(waiting_.begin());
    end(first.mapped(), applied_index);
  }
}

void Reads::tick(Duration now, bool leader_known) {
  const Error error = leader_known ? Error(Errc::timeout, "no majority confirmed the read before its deadline")
                                   : Error(Errc::no_leader, "no leader was found before the deadline of the read");
  end_late(unanswered_, now, error);
  for (auto& [id, barriers] : requested_) end_late(barriers, now, error);
  std::erase_if(requested_, [](const auto& request) { return request.second.empty(); });
  for (auto at = waiting_.begin(); at != waiting_.end();) {
    if (at->second.deadline > now) {
      ++at;
      continue;
    }
    Barrier late = std::move(at->second);
    at = waiting_.erase(at);
    end(late, fail(Errc::timeout, "this member did not apply the index in time; it may be far behind"));
  }
  std::move(unanswered_.begin(), unanswered_.end(), std::back_inserter(gathering_));
  unanswered_.clear();
}

void Reads::end_all(const Error& error) {
  std::vector<Barrier> all = std::move(gathering_);
  std::move(unanswered_.begin(), unanswered_.end(), std::back_inserter(all));
  for (auto& [id, barriers] : requested_) std::move(barriers.begin(), barriers.end(), std::back_inserter(all));
  for (auto& [index, barrier] : waiting_) all.push_back(std::move(barrier));
  gathering_.clear();
  unanswered_.clear();
  requested_.clear();
  waiting_.clear();
  for (Barrier& barrier : all) end(barrier, fail(error));
}

std::size_t Reads::size() const {
  std::size_t count = gathering_.size() + unanswered_.size() + waiting_.size();
  for (const auto& [id, barriers] : requested_) count += barriers.size();
  return count;
}

}  // namespace flotilla::node
