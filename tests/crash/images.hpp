// The rules by which a power loss makes an image of what was pending.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "disk.hpp"
#include "judge.hpp"
#include "model.hpp"

namespace crash {

enum class Rule : std::uint8_t {
  all,     ///< everything that was issued is there
  synced,  ///< nothing but what was synced
  single,  ///< one pending operation alone is there, or one alone is not
  subset,  ///< any of them are
  length,  ///< files have their length, but not what was written
  torn,    ///< one write is there in part
  names,   ///< names without contents, contents without names, names in another order
  stale,   ///< instead of what was written, what the place once held
  damage,  ///< synced bytes are changed: this must be seen
  killed,  ///< the process alone ended; what was pending stays so, and a power loss follows
};
inline constexpr std::size_t rules = 10;
std::string_view to_string(Rule rule);
std::optional<Rule> rule_of(std::string_view name);

struct Crash {
  Image image;
  Disk disk;  ///< for whoever starts on the image
  std::optional<Damage> damage;
};

/// `before`: all that returned; `during`: the same with one more operation under way. nullopt: the rule has nothing to
/// change here.
std::optional<Crash> make_crash(const Disk& before, const Disk& during, Rule rule, Random& random);

}  // namespace crash
