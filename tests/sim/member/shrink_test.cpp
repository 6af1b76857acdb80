#include "sim/member/shrink.hpp"

#include <doctest/doctest.h>

namespace flotilla::sim {
namespace {

using namespace std::chrono_literals;

Plan large() {
  Plan plan;
  plan.seed = 7;
  plan.members = 5;
  plan.families.set();
  return plan;
}

bool on(const Plan& plan, Family family) {
  return plan.families[position(family)];
}

const auto never = [] { return false; };

}  // namespace

TEST_SUITE("sim.shrink") {
  TEST_CASE("what is not needed for a failure goes, and what is stays") {
    const auto run = [](const Plan& plan) -> Outcome {
      const bool fails = plan.members >= 4 && on(plan, Family::crash) && on(plan, Family::drift) && plan.until > 20s;
      return fails ? Outcome{"10.0.0.3 lost entry 17", 20s} : Outcome{};
    };
    const Plan small = shrink(large(), run(large()), run, never);
    CHECK(small.members == 4);
    CHECK(small.families == FamilySet().set(position(Family::crash)).set(position(Family::drift)));
    CHECK(small.until > 20s);
    CHECK(small.until <= 20s + 1ms);
    CHECK(small.seed == 7);
    CHECK_FALSE(run(small).failure.empty());
  }

  TEST_CASE("another failure on the way is not followed") {
    const auto run = [](const Plan& plan) -> Outcome {
      if (plan.members < 5) return {"the cluster did not form", 0s};
      return on(plan, Family::torn) ? Outcome{"10.0.0.3 lost entry 17", 59s} : Outcome{};
    };
    const Plan small = shrink(large(), run(large()), run, never);
    CHECK(small.members == 5);
    CHECK(small.families == FamilySet().set(position(Family::torn)));
  }

  TEST_CASE("the time that a failure needs is found also if it shows long after") {
    const auto run = [](const Plan& plan) -> Outcome {
      return plan.until >= 5s ? Outcome{"members do not become level", plan.until + 60s} : Outcome{};
    };
    const Plan small = shrink(large(), run(large()), run, never);
    CHECK(small.until >= 5s);
    CHECK(small.until < 7s);
  }

  TEST_CASE("it ends when it was enough, with what it has") {
    unsigned runs = 0;
    const auto run = [&runs](const Plan&) -> Outcome {
      ++runs;
      return {"always", 59s};
    };
    const Plan small = shrink(large(), {"always", 59s}, run, [&runs] { return runs == 3; });
    CHECK(runs == 3);
    CHECK(small.members == 2);
    CHECK(small.families.count() == families - 2);
  }

  TEST_CASE("failures that differ in numbers, names and places alone are of one class") {
    CHECK(class_of("#8fb8 voted for #face in term 7\n  more") == class_of("#1111 voted for #2222 in term 9"));
    CHECK(class_of("/dev/shm/1/log at 512: torn") == class_of("/tmp/2/log at 7: torn"));
    CHECK(class_of("10.0.0.3 lost entry 17") != class_of("10.0.0.3 has entry 17"));
  }

  TEST_CASE("every family has a name that is found again") {
    for (std::size_t i = 0; i < families; ++i) {
      const auto family = static_cast<Family>(i);
      CHECK(family_of(to_string(family)) == family);
    }
    CHECK_FALSE(family_of("nothing").has_value());
  }

  TEST_CASE("the command that repeats a run says all of it") {
    Plan plan = large();
    plan.families.reset().set(position(Family::torn)).set(position(Family::one_way));
    plan.until = 12500ms;
    CHECK(command_of(plan) ==
          "./dev sim --seeds 1 --from 7 --members 5 --families torn,one_way --until 12.5s --no-shrink");
  }
}

}  // namespace flotilla::sim
