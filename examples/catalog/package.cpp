#include "package.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>

namespace catalog {

using flotilla::Errc;
using flotilla::fail;
using flotilla::Result;

namespace {

constexpr std::string_view blanks = " \t\r\n";

std::string_view trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

bool is_blank(std::string_view line) {
  return trim(line).empty();
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.';
}

/// Debian policy 5.6.1: lower case letters, digits, plus, minus, period; begins with a letter or digit.
bool is_name(std::string_view name) {
  return !name.empty() && name.front() != '+' && name.front() != '-' && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), is_name_character);
}

/// Walks one alternative from left to right.
class RelationParser {
 public:
  explicit RelationParser(std::string_view text) : whole_(trim(text)), rest_(whole_) {}

  Result<Relation> parse() {
    Relation relation;
    relation.name = take_while(is_name_character);
    if (!is_name(relation.name)) return wrong("a package name is missing or malformed");
    if (take(':')) {
      relation.architecture = take_while([](char c) { return is_name_character(c); });
      if (relation.architecture.empty()) return wrong("nothing after the colon");
    }
    skip_blanks();
    if (take('(')) {
      if (auto ok = parse_version(relation); !ok) return fail(ok.error());
    }
    skip_blanks();
    if (take('[') && !take_until(']', relation.architectures)) return wrong("[ without ]");
    skip_blanks();
    // Build profiles may repeat: <a b> <c>.
    while (take('<')) {
      std::string profile;
      if (!take_until('>', profile)) return wrong("< without >");
      relation.profiles += relation.profiles.empty() ? profile : " | " + profile;
      skip_blanks();
    }
    if (!rest_.empty()) return wrong("unexpected text");
    return relation;
  }

 private:
  Result<void> parse_version(Relation& relation) {
    skip_blanks();
    relation.comparison = take_while([](char c) { return c == '<' || c == '=' || c == '>'; });
    // The single forms are obsolete and mean the inclusive ones (dpkg's deb-control manual).
    if (relation.comparison == "<") relation.comparison = "<=";
    if (relation.comparison == ">") relation.comparison = ">=";
    static constexpr std::string_view known[] = {"<<", "<=", "=", ">=", ">>"};
    if (std::find(std::begin(known), std::end(known), relation.comparison) == std::end(known)) {
      return wrong("a version needs <<, <=, =, >= or >>");
    }
    std::string version;
    if (!take_until(')', version)) return wrong("( without )");
    relation.version = trim(version);
    if (relation.version.empty() || relation.version.find_first_of(" \t(") != std::string::npos) {
      return wrong("a version is missing or malformed");
    }
    return {};
  }

  bool take(char c) {
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  template <class Predicate>
  std::string take_while(Predicate predicate) {
    const auto end = std::find_if_not(rest_.begin(), rest_.end(), predicate);
    const auto count = static_cast<std::size_t>(end - rest_.begin());
    std::string taken(rest_.substr(0, count));
    rest_.remove_prefix(count);
    return taken;
  }
  bool take_until(char end, std::string& taken) {
    const std::size_t at = rest_.find(end);
    if (at == std::string_view::npos) return false;
    taken = trim(rest_.substr(0, at));
    rest_.remove_prefix(at + 1);
    return true;
  }
  void skip_blanks() { rest_.remove_prefix(std::min(rest_.find_first_not_of(blanks), rest_.size())); }

  tl::unexpected<flotilla::Error> wrong(std::string_view what) const {
    return fail(Errc::invalid_argument, fmt::format("dependency \"{}\": {}", whole_, what));
  }

  std::string_view whole_;
  std::string_view rest_;
};

/// Calls `use` with each part of `text` between `separator`s, until one returns an error.
template <class Use>
Result<void> each_part(std::string_view text, char separator, Use use) {
  while (true) {
    const std::size_t at = text.find(separator);
    if (Result<void> ok = use(text.substr(0, at)); !ok) return ok;
    if (at == std::string_view::npos) return {};
    text.remove_prefix(at + 1);
  }
}

using Fields = std::map<std::string, std::string, std::less<>>;

Result<Fields> parse_fields(std::string_view stanza) {
  Fields fields;
  std::string* current = nullptr;
  std::size_t number = 0;
  while (!stanza.empty()) {
    const std::size_t newline = stanza.find('\n');
    const std::string_view line = stanza.substr(0, newline);
    stanza.remove_prefix(newline == std::string_view::npos ? stanza.size() : newline + 1);
    ++number;
    if (is_blank(line)) return fail(Errc::invalid_argument, fmt::format("line {}: blank inside a record", number));
    if (line.front() == '#') continue;
    if (line.front() == ' ' || line.front() == '\t') {
      if (current == nullptr) return fail(Errc::invalid_argument, "the record begins with a continuation line");
      current->append("\n").append(trim(line));
      continue;
    }
    const std::size_t colon = line.find(':');
    if (colon == 0 || colon == std::string_view::npos || line.substr(0, colon).find_first_of(blanks) < colon) {
      return fail(Errc::invalid_argument, fmt::format("line {}: no \"Name: value\"", number));
    }
    std::string name(line.substr(0, colon));
    std::transform(name.begin(), name.end(), name.begin(), lower);
    const auto [at, added] = fields.try_emplace(name, trim(line.substr(colon + 1)));
    if (!added) return fail(Errc::invalid_argument, fmt::format("line {}: a second \"{}\"", number, at->first));
    current = &at->second;
  }
  return fields;
}

std::string value_of(const Fields& fields, std::string_view name) {
  const auto at = fields.find(name);
  return at == fields.end() ? std::string() : at->second;
}

}  // namespace

Result<std::vector<Alternatives>> parse_relations(std::string_view field) {
  std::vector<Alternatives> all;
  if (is_blank(field)) return all;
  const Result<void> parsed = each_part(field, ',', [&](std::string_view group) -> Result<void> {
    Alternatives alternatives;
    const Result<void> ok = each_part(group, '|', [&](std::string_view one) -> Result<void> {
      Result<Relation> relation = RelationParser(one).parse();
      if (!relation) return fail(relation.error());
      alternatives.push_back(std::move(*relation));
      return {};
    });
    if (!ok) return ok;
    all.push_back(std::move(alternatives));
    return {};
  });
  if (!parsed) return fail(parsed.error());
  return all;
}

Result<Package> parse_package(std::string_view stanza) {
  const Result<Fields> fields = parse_fields(stanza);
  if (!fields) return fail(fields.error());
  Package package;
  package.name = value_of(*fields, "package");
  if (!is_name(package.name)) return fail(Errc::invalid_argument, "the Package field is missing or malformed");
  package.architecture = value_of(*fields, "architecture");
  package.version = value_of(*fields, "version");
  package.section = value_of(*fields, "section");
  Result<std::vector<Alternatives>> pre_depends = parse_relations(value_of(*fields, "pre-depends"));
  if (!pre_depends) return fail(pre_depends.error());
  Result<std::vector<Alternatives>> depends = parse_relations(value_of(*fields, "depends"));
  if (!depends) return fail(depends.error());
  package.pre_depends = std::move(*pre_depends);
  package.depends = std::move(*depends);
  return package;
}

std::string_view Stanzas::take_line() {
  const std::size_t newline = rest_.find('\n');
  const std::string_view line = rest_.substr(0, newline == std::string_view::npos ? newline : newline + 1);
  rest_.remove_prefix(line.size());
  ++lines_taken_;
  return line;
}

std::optional<std::string_view> Stanzas::next() {
  std::string_view first;
  do {
    if (rest_.empty()) return std::nullopt;
    first = take_line();
  } while (is_blank(first));
  line_ = lines_taken_;
  std::size_t size = first.size();
  while (!rest_.empty()) {
    const std::string_view line = take_line();
    if (is_blank(line)) break;
    size += line.size();
  }
  return std::string_view(first.data(), size);
}

}  // namespace catalog
