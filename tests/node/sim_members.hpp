// Three real members in virtual time, with disks and state machines that can stand still.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "sim/member/member.hpp"
#include "support/temp_dir.hpp"

namespace flotilla::sim {

struct Members {
  explicit Members(const std::function<void(MemberOptions&)>& adjust = {}) {
    for (std::size_t i = 0; i < 3; ++i) {
      MemberOptions options;
      options.host = "10.0.0." + std::to_string(i + 1);
      options.directory = directory / std::to_string(i);
      options.found = i == 0;
      if (i > 0) options.join = {"10.0.0.1:7000"};
      options.disk_delay = options.apply_delay = std::chrono::microseconds(100);
      if (adjust) adjust(options);
      all.push_back(std::make_unique<SimMember>(scheduler, network, history, oracle, options));
      REQUIRE(all.back()->start().has_value());
    }
    const auto formed = [this] {
      const auto lines = all[0]->status().members;
      return lines.size() == 3 && std::all_of(lines.begin(), lines.end(), [](auto& line) { return line.voter; });
    };
    REQUIRE(scheduler.run_until(formed, std::chrono::seconds(120)));
    scheduler.run_for(std::chrono::seconds(5));
  }
  /// nullptr: nobody leads.
  SimMember* leader() {
    for (const auto& member : all) {
      if (member->running() && member->status().role == Role::leader) return member.get();
    }
    return nullptr;
  }
  SimMember* follower() {
    SimMember* const leads = leader();
    const auto at = std::find_if(all.begin(), all.end(), [leads](const auto& member) { return member.get() != leads; });
    return leads == nullptr ? nullptr : at->get();
  }
  void pause_disks_but(const SimMember* spared, Duration span) {
    for (const auto& member : all) {
      if (member->running() && member.get() != spared) member->pause_disk(scheduler.now() + span);
    }
  }

  test::TempDir directory;
  test::SimScheduler scheduler{11};
  test::SimNetwork network{scheduler};
  History history;
  Oracle oracle{[this](std::string what) { history.broken(std::move(what)); }};
  std::vector<std::unique_ptr<SimMember>> all;
};

}  // namespace flotilla::sim
