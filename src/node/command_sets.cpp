#include "node/command_sets.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace flotilla::node {
namespace {

using Names = std::set<std::string, std::less<>>;

const std::vector<std::string>* commands_of(NodeId id, const state::Nodes& nodes) {
  const auto at = nodes.commands.find(id);
  return at == nodes.commands.end() ? nullptr : &at->second;
}

bool has(const std::vector<std::string>* commands, std::string_view name) {
  return commands != nullptr && std::binary_search(commands->begin(), commands->end(), name);
}

Names common_to_voters(const raft::Configuration& configuration, const state::Nodes& nodes) {
  std::optional<Names> common;
  for (const NodeId id : configuration.ids()) {
    if (!configuration.is_voter(id)) continue;
    const auto* commands = commands_of(id, nodes);
    if (commands == nullptr) return {};
    if (!common) common.emplace(commands->begin(), commands->end());
    std::erase_if(*common, [&](const std::string& name) { return !has(commands, name); });
  }
  return std::move(common).value_or(Names());
}

}  // namespace

void CommandSets::update(const raft::Configuration& configuration, std::shared_ptr<const state::Nodes> nodes) {
  if (nodes == nodes_ && configuration == configuration_) return;
  configuration_ = configuration;
  nodes_ = std::move(nodes);
  common_ = common_to_voters(configuration_, *nodes_);
}

std::optional<Error> CommandSets::refuse(std::string_view command) const {
  if (common_.contains(command)) return std::nullopt;
  for (const NodeId id : configuration_.ids()) {
    if (!configuration_.is_voter(id)) continue;
    const auto* commands = commands_of(id, *nodes_);
    if (commands == nullptr) {
      return Error(Errc::unknown_command, fmt::format("node {:016x} has not said yet which commands it has; it was "
                                                      "not applied",
                                                      id.value));
    }
    if (!has(commands, command)) {
      return Error(Errc::unknown_command,
                   fmt::format("node {:016x} has no command '{}', and would have to stop there; it was not applied. "
                               "Every voter needs the command before it is called",
                               id.value, command));
    }
  }
  return std::nullopt;
}

std::optional<std::string> lacks_commands(NodeId id, const raft::Configuration& configuration,
                                          const state::Nodes& nodes) {
  const auto* commands = commands_of(id, nodes);
  if (commands == nullptr) return fmt::format("node {:016x} has not said yet which commands it has", id.value);
  for (const std::string& name : common_to_voters(configuration, nodes)) {
    if (has(commands, name)) continue;
    return fmt::format("node {:016x} has no command '{}', which all voters have", id.value, name);
  }
  return std::nullopt;
}

}  // namespace flotilla::node
