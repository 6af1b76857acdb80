#include "shrink.hpp"

#include <algorithm>
#include <cctype>
#include <sstream>

namespace flotilla::sim {
namespace {

using namespace std::chrono_literals;

class Shrinking {
 public:
  Shrinking(Plan plan, const std::string& failure, const std::function<Outcome(const Plan&)>& run,
            const std::function<bool()>& expired)
      : best_(std::move(plan)), until_(best_.until), class_(class_of(failure)), run_(run), expired_(expired) {}

  Plan result() && { return std::move(best_); }

  /// Whether it gets smaller so.
  bool keeps_failing(const Plan& plan) {
    if (plan == best_ || expired_()) return false;
    const Outcome outcome = run_(plan);
    if (outcome.failure.empty() || class_of(outcome.failure) != class_) return false;
    best_ = plan;
    end_with(outcome.ended);
    return true;
  }

  /// What would come after the failure changes nothing before it.
  void end_with(Duration ended) { best_.until = std::min(best_.until, round_up(ended) + 1ms); }

  bool fewer_members() {
    for (std::size_t members = 2; members < best_.members; ++members) {
      Plan plan = best_;
      plan.members = members;
      plan.until = until_;
      if (keeps_failing(plan)) return true;
    }
    return false;
  }
  bool fewer_families() {
    bool fewer = false;
    for (std::size_t i = 0; i < families; ++i) {
      if (!best_.families[i]) continue;
      Plan plan = best_;
      plan.families.reset(i);
      plan.until = until_;
      fewer |= keeps_failing(plan);
    }
    return fewer;
  }
  bool less_time() {
    for (const int percent : {10, 25, 50, 75, 90}) {
      Plan plan = best_;
      plan.until = round_up(best_.until * percent / 100);
      if (plan.until < best_.until && keeps_failing(plan)) return true;
    }
    return false;
  }

 private:
  /// So that it can be typed.
  static Duration round_up(Duration time) { return std::chrono::ceil<std::chrono::milliseconds>(time); }

  Plan best_;
  const Duration until_;  ///< with less of the rest, a failure may take longer again
  const std::string class_;
  const std::function<Outcome(const Plan&)>& run_;
  const std::function<bool()>& expired_;
};

}  // namespace

std::string class_of(const std::string& failure) {
  std::istringstream words(failure.substr(0, failure.find('\n')));
  std::string word;
  std::string text;
  while (words >> word) {
    const bool varies = word.starts_with('#') || word.starts_with('/') ||
                        std::any_of(word.begin(), word.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
    if (!varies) text += word + " ";
  }
  return text;
}

Plan shrink(Plan plan, const Outcome& outcome, const std::function<Outcome(const Plan&)>& run,
            const std::function<bool()>& expired) {
  Shrinking shrinking(std::move(plan), outcome.failure, run, expired);
  shrinking.end_with(outcome.ended);
  for (bool smaller = true; smaller;) {
    smaller = shrinking.fewer_members();
    smaller = shrinking.fewer_families() || smaller;
  }
  while (shrinking.less_time()) {
  }
  return std::move(shrinking).result();
}

}  // namespace flotilla::sim
