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
  explicit Members(std::function<void(MemberOptions&)> adjust_all = {}) : adjust(std::move(adjust_all)) {
    add({});
    add({"10.0.0.1:7000"});
    add({"10.0.0.1:7000"});
    const auto formed = [this] {
      const auto lines = all[0]->status().members;
      return lines.size() == 3 && std::all_of(lines.begin(), lines.end(), [](auto& line) { return line.voter; });
    };
    REQUIRE(scheduler.run_until(formed, std::chrono::seconds(120)));
    scheduler.run_for(std::chrono::seconds(5));
  }
  /// One more, which asks these to be admitted; the first founds the cluster.
  SimMember& add(std::vector<Address> join) {
    MemberOptions options;
    options.host = "10.0.0." + std::to_string(all.size() + 1);
    options.directory = directory / std::to_string(all.size());
    options.found = join.empty();
    options.join = std::move(join);
    options.disk_delay = options.apply_delay = std::chrono::microseconds(100);
    if (adjust) adjust(options);
    all.push_back(std::make_unique<SimMember>(scheduler, network, history, oracle, options));
    REQUIRE(all.back()->start().has_value());
    return *all.back();
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
  /// From all that there are.
  void cut_off(const SimMember& one) {
    for (const auto& member : all) {
      if (member.get() != &one) network.partition(one.host(), member->host());
    }
  }
  void pause_disks_but(const SimMember* spared, Duration span) {
    for (const auto& member : all) {
      if (member->running() && member.get() != spared) member->pause_disk(scheduler.now() + span);
    }
  }

  std::function<void(MemberOptions&)> adjust;
  test::TempDir directory;
  test::SimScheduler scheduler{11};
  test::SimNetwork network{scheduler};
  History history;
  Oracle oracle{[this](std::string what) { history.broken(std::move(what)); }};
  std::vector<std::unique_ptr<SimMember>> all;
};

}  // namespace flotilla::sim
