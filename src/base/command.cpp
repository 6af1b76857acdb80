#include "flotilla/command.hpp"

#include <stdexcept>

#include <fmt/format.h>

namespace flotilla {

std::string_view Args::operator[](std::size_t position) const {
  if (position >= values_.size()) {
    throw std::out_of_range(fmt::format("argument {} of {} was asked for", position, values_.size()));
  }
  return values_[position];
}

Result<void> Args::expect(std::size_t least, std::size_t most) const {
  if (values_.size() >= least && values_.size() <= most) return {};
  if (least == most) {
    return fail(Errc::invalid_argument,
                fmt::format("wrong number of arguments: {} given, {} wanted", values_.size(), least));
  }
  return fail(Errc::invalid_argument,
              fmt::format("wrong number of arguments: {} given, {} to {} wanted", values_.size(), least, most));
}

Commands& Commands::add(std::string name, CommandFn run) {
  if (name.empty() || name.size() > name_bytes_max || !run) malformed_ = true;
  const auto [at, added] = commands_.insert_or_assign(std::move(name), std::move(run));
  if (!added) replaced_.insert(at->first);
  return *this;
}

Commands& Commands::add(const Commands& other) {
  for (const auto& [name, run] : other.commands_) add(name, run);
  return *this;
}

const CommandFn* Commands::find(std::string_view name) const {
  const auto at = commands_.find(name);
  return at == commands_.end() ? nullptr : &at->second;
}

Result<void> Commands::check() const {
  if (malformed_) {
    return fail(Errc::invalid_argument,
                fmt::format("a command was registered without a function, or its name is empty or longer than {} bytes",
                            name_bytes_max));
  }
  if (commands_.size() > commands_max) {
    return fail(Errc::invalid_argument,
                fmt::format("{} commands, at most {} are allowed", commands_.size(), commands_max));
  }
  return {};
}

}  // namespace flotilla
