// What entries of type command and session carry. FORMAT.md describes the bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/codec.hpp"
#include "flotilla/types.hpp"

namespace flotilla::state {

/// Names one call for ever: a command takes effect once under it, however many copies reach the log.
struct CallId {
  std::uint64_t session = 0;   ///< the random part of the session's name, unique in the cluster
  std::uint64_t sequence = 0;  ///< 1, 2, 3, ... within the session

  friend auto operator<=>(const CallId&, const CallId&) = default;
};

/// A decoded command; views into the payload.
struct CommandPayload {
  CallId call;
  std::uint64_t acknowledged_below = 0;  ///< the caller has seen the results of all sequences below this
  std::string_view name;
  std::vector<std::string_view> args;
};

/// Of one command.
inline constexpr std::size_t args_max = 65'536;

/// Requires: at most args_max arguments.
SharedBytes encode_command(const CallId& call, std::uint64_t acknowledged_below, std::string_view name,
                           std::span<const std::string_view> args);
/// The bytes encode_command would make.
std::size_t encoded_command_bytes(std::string_view name, std::span<const std::string_view> args);
/// nullopt: malformed. At most 65,536 arguments.
std::optional<CommandPayload> decode_command(std::string_view payload);
/// The same into `command`, whose memory is used again. False: malformed, and `command` is unspecified.
[[nodiscard]] bool decode_command(std::string_view payload, CommandPayload& command);

/// The name in a command payload; empty: malformed.
std::string_view command_name(std::string_view payload);

/// Opens a session: its owner and incarnation end every earlier session of that node.
struct SessionPayload {
  NodeId node_id;
  std::uint64_t incarnation = 0;
  std::uint64_t session = 0;
  std::vector<std::string>
      commands;  ///< the names that the owner has, sorted, each once; at most Commands::commands_max
};
/// u32 count, then so many names.
void encode_names(std::string& out, const std::vector<std::string>& names);
std::string encode_session(const SessionPayload& session);
std::optional<SessionPayload> decode_session(std::string_view payload);
/// Takes them off the front of what `in` has left. nullopt: malformed, too many, or not sorted.
std::optional<std::vector<std::string>> decode_names(Decoder& in);

}  // namespace flotilla::state
