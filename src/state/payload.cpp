#include "state/payload.hpp"

#include <utility>

#include "base/assert.hpp"
#include "base/codec.hpp"
#include "flotilla/command.hpp"

namespace flotilla::state {
namespace {

constexpr std::size_t length_bytes = 4;
constexpr std::size_t command_header_bytes = 8 + 8 + 8 + length_bytes + length_bytes;

}  // namespace

std::size_t encoded_command_bytes(std::string_view name, std::span<const std::string_view> args) {
  std::size_t bytes = command_header_bytes + name.size();
  for (const std::string_view arg : args) bytes += length_bytes + arg.size();
  return bytes;
}

SharedBytes encode_command(const CallId& call, std::uint64_t acknowledged_below, std::string_view name,
                           std::span<const std::string_view> args) {
  const std::size_t bytes = encoded_command_bytes(name, args);
  return SharedBytes::of(bytes, [&](char* to) {
    Memory out(to);
    BasicEncoder encoder(out);
    encoder.u64(call.session).u64(call.sequence).u64(acknowledged_below).bytes(name);
    encoder.u32(static_cast<std::uint32_t>(args.size()));
    for (const std::string_view arg : args) encoder.bytes(arg);
    FLOTILLA_ASSERT(out.end() == to + bytes);
  });
}

bool decode_command(std::string_view payload, CommandPayload& command) {
  Decoder in(payload);
  command.call.session = in.u64();
  command.call.sequence = in.u64();
  command.acknowledged_below = in.u64();
  command.name = in.bytes();
  const std::size_t count = in.u32();
  // The count is checked against what is left before anything is reserved for it.
  if (!in.ok() || count > args_max || count > in.remaining() / length_bytes) return false;
  if (command.name.empty() || command.name.size() > Commands::name_bytes_max) return false;
  command.args.clear();
  command.args.reserve(count);
  for (std::size_t i = 0; i < count; ++i) command.args.push_back(in.bytes());
  return in.done();
}

std::optional<CommandPayload> decode_command(std::string_view payload) {
  CommandPayload command;
  if (!decode_command(payload, command)) return std::nullopt;
  return command;
}

std::string_view command_name(std::string_view payload) {
  Decoder in(payload);
  static_cast<void>(in.raw(8 + 8 + 8));
  return in.bytes();
}

void encode_names(std::string& out, const std::vector<std::string>& names) {
  Encoder encoder(out);
  encoder.u32(static_cast<std::uint32_t>(names.size()));
  for (const std::string& name : names) encoder.bytes(name);
}

std::optional<std::vector<std::string>> decode_names(Decoder& in) {
  const std::size_t count = in.u32();
  if (!in.ok() || count > Commands::commands_max || count > in.remaining() / length_bytes) return std::nullopt;
  std::vector<std::string> names;
  names.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::string_view name = in.bytes();
    if (name.empty() || name.size() > Commands::name_bytes_max) return std::nullopt;
    if (!names.empty() && names.back() >= name) return std::nullopt;
    names.emplace_back(name);
  }
  return names;
}

std::string encode_session(const SessionPayload& session) {
  std::string out;
  Encoder(out).u64(session.node_id.value).u64(session.incarnation).u64(session.session);
  encode_names(out, session.commands);
  return out;
}

std::optional<SessionPayload> decode_session(std::string_view payload) {
  Decoder in(payload);
  SessionPayload session;
  session.node_id.value = in.u64();
  session.incarnation = in.u64();
  session.session = in.u64();
  auto commands = decode_names(in);
  if (!in.done() || !commands) return std::nullopt;
  session.commands = std::move(*commands);
  return session;
}

}  // namespace flotilla::state
