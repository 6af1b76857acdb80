// Whether a member that started on an image kept every promise.
#pragma once

#include <optional>
#include <string>

#include "history.hpp"
#include "member.hpp"
#include "model.hpp"

namespace crash {

/// Bytes of synced data that were changed under the member.
struct Damage {
  std::string file;  ///< below the data directory
  InodeId inode = 0;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

enum class Ending : std::uint8_t {
  whole,    ///< everything that was issued
  older,    ///< without what was under way
  cut,      ///< with a torn tail
  anew,     ///< nothing was promised, and it began again
  refused,  ///< as it should: it was damaged
};
inline constexpr std::size_t endings = 5;
const char* to_string(Ending ending);

struct Verdict {
  Ending ending = Ending::whole;
  std::string wrong;  ///< empty: right
};

/// The contents of a data directory that no transaction is changing: against `truth` at `index`. Empty: right.
std::string check_contents(const std::filesystem::path& data_dir, const Truth& truth, std::uint64_t index);

/// `member` has just started (or failed to, with `failure`), and everything it did was recorded. `image` is what it
/// started on. Brings `expected` and `truth` to where the member now stands.
Verdict judge(Member& member, const std::optional<flotilla::Error>& failure, const Image& image,
              const std::optional<Damage>& damage, Expectation& expected, Truth& truth,
              const std::filesystem::path& data_dir);

}  // namespace crash
