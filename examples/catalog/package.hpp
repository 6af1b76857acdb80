// Debian package records (deb822 stanzas), from dpkg's status file or a Packages index.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "flotilla/error.hpp"

namespace catalog {

/// One alternative of a dependency: `libc6:any (>= 2.34) [amd64] <!nocheck>`.
struct Relation {
  std::string name;
  std::string architecture;   ///< after the colon, e.g. "any"; empty: none
  std::string comparison;     ///< "<<", "<=", "=", ">=", ">>"; empty: any version will do
  std::string version;        ///< empty exactly if comparison is
  std::string architectures;  ///< inside [ ], as written
  std::string profiles;       ///< inside < >, as written

  friend bool operator==(const Relation&, const Relation&) = default;
};

/// Alternatives, any of which satisfies it: `a | b`.
using Alternatives = std::vector<Relation>;

/// A dependency field: all of these must hold. invalid_argument names the place that is wrong.
flotilla::Result<std::vector<Alternatives>> parse_relations(std::string_view field);

struct Package {
  std::string name;
  std::string architecture;  ///< empty if the record has none
  std::string version;       ///< likewise
  std::string section;       ///< likewise
  std::vector<Alternatives> pre_depends;
  std::vector<Alternatives> depends;
};

/// Reads one stanza (no blank line inside). invalid_argument: a line that is no field, a field twice, no or a malformed
/// Package field, a malformed dependency.
flotilla::Result<Package> parse_package(std::string_view stanza);

/// The stanzas of a whole file, in order, as views into it. Blank lines, also those of blanks alone, separate.
class Stanzas {
 public:
  explicit Stanzas(std::string_view text) : rest_(text) {}
  /// The next stanza with its last newline, or nullopt at the end.
  std::optional<std::string_view> next();
  /// The line in the file where the stanza that next() returned begins; 1 is the first.
  std::size_t line() const { return line_; }

 private:
  std::string_view take_line();
  std::string_view rest_;
  std::size_t line_ = 0;
  std::size_t lines_taken_ = 0;
};

}  // namespace catalog
