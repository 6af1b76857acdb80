// What can go wrong, as values. No function of this library throws (an exception of the caller's own code, or of
// memory running out in the caller's thread, passes through).
#pragma once

#include <string>
#include <system_error>
#include <utility>

#include <tl/expected.hpp>

namespace flotilla {

/// The expected outcomes. Each says what is certain about the call that got it.
/// Numbers are part of the format (a command's error is stored in its session): they are never reused.
enum class Errc {
  // A call ended; the first group is "refused": the command certainly took no effect and never will.
  not_leader = 1,         ///< this member does not lead; the message names the leader where one is known
  no_leader = 2,          ///< no leader was found before the deadline, and nothing was sent to anybody
  overloaded = 3,         ///< a queue or window is full; try again later
  timeout = 4,            ///< the deadline passed before anything left this member: not applied
  proposal_dropped = 5,   ///< refused or replaced by another leader's entry: not applied
  unknown_command = 6,    ///< no such command is registered here, or not with the leader
  entry_too_large = 7,    ///< name and arguments exceed Options::entry_bytes_max
  shutting_down = 8,      ///< close() was called; the command was not sent
  would_deadlock = 9,     ///< a blocking call from a completion, or any call into the database from inside a command
  invalid_argument = 10,  ///< wrong argument count, malformed name, key or value over a limit; the message says which
  command_failed = 11,    ///< the command itself refused or threw; its writes were rolled back on every member alike
  // The call may yet take effect; asking again under the same session and sequence is safe.
  outcome_unknown = 20,  ///< sent, but its fate was not learned before the deadline, or before this member stopped
  // Opening, and the state of this member.
  in_use = 30,               ///< another process (the message names it) or another DB of this process has the directory
  io_error = 31,             ///< the operating system refused a file operation; the message has its reason
  disk_full = 32,            ///< no space; nothing acknowledged is lost. Of a command: refused, it took no effect
  damaged = 33,              ///< durable data fail their checksum or contradict each other; this member takes no part
  address_in_use = 34,       ///< Options::listen is taken, or cannot be bound
  not_founded = 35,          ///< the directory is new and neither Options::found nor Options::join was given
  wrong_cluster = 36,        ///< the other side belongs to another cluster, or is another node than expected
  version_unsupported = 37,  ///< a file or a peer has a format that this build does not know
  map_full = 38,             ///< the database reached Options::map_size; reopen with a larger one
  too_many_readers = 39,     ///< Options::readers_max ReadTxns are open
  stopped = 40,              ///< this member stopped itself because of a local fault; status() has the reason
  forked = 41,               ///< the process was forked after open(); only the parent may use the database
  session_full = 42,         ///< too many unacknowledged results in one session
  too_many_tables = 43,      ///< the format's limit of named tables is reached
  closed = 44,               ///< the stream, service or database is closed
  not_found = 45,            ///< no such thing: a member, a service, a file
  removed = 46,              ///< this member was removed from its cluster, for ever; an empty directory may join anew
};

const std::error_category& category() noexcept;
std::error_code make_error_code(Errc code) noexcept;

}  // namespace flotilla

template <>
struct std::is_error_code_enum<flotilla::Errc> : std::true_type {};

namespace flotilla {

/// A code to act on and a message to read: what happened, what is still true, what to do.
class Error {
 public:
  Error(Errc code, std::string message) : code_(make_error_code(code)), message_(std::move(message)) {}
  Error(std::error_code code, std::string message) : code_(code), message_(std::move(message)) {}
  explicit Error(Errc code) : Error(code, category().message(static_cast<int>(code))) {}

  const std::error_code& code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }

  friend bool operator==(const Error& error, Errc code) { return error.code_ == make_error_code(code); }

 private:
  std::error_code code_;
  std::string message_;
};

/// A value or an Error. Used through the subset that tl::expected shares with std::expected.
template <class T>
using Result = tl::expected<T, Error>;

/// `return fail(Errc::invalid_argument, "...")` from any function that returns a Result.
inline tl::unexpected<Error> fail(Errc code, std::string message) {
  return tl::unexpected<Error>(Error(code, std::move(message)));
}
inline tl::unexpected<Error> fail(Error error) {
  return tl::unexpected<Error>(std::move(error));
}

}  // namespace flotilla
