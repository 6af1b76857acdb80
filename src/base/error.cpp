#include "flotilla/error.hpp"

#include "flotilla/status.hpp"

namespace flotilla {
namespace {

class Category final : public std::error_category {
 public:
  const char* name() const noexcept override { return "flotilla"; }
  std::string message(int code) const override {
    switch (static_cast<Errc>(code)) {
      case Errc::not_leader: return "this member does not lead";
      case Errc::no_leader: return "no leader is known; nothing was sent";
      case Errc::overloaded: return "a queue is full; the command was not sent, try again later";
      case Errc::timeout: return "the deadline passed; not applied";
      case Errc::proposal_dropped: return "another leader's entry took its place; not applied";
      case Errc::unknown_command: return "no command of this name is registered";
      case Errc::entry_too_large: return "the command is larger than an entry may be";
      case Errc::shutting_down: return "the database is being closed; the command was not sent";
      case Errc::would_deadlock: return "this call would wait for the thread that it is made on";
      case Errc::invalid_argument: return "an argument is not valid";
      case Errc::command_failed: return "the command failed; its writes were rolled back";
      case Errc::outcome_unknown: return "the command was sent, but its fate is unknown: it may yet be applied";
      case Errc::in_use: return "the directory is in use";
      case Errc::io_error: return "a file operation failed";
      case Errc::disk_full: return "no space is left on the device";
      case Errc::damaged: return "durable data are damaged";
      case Errc::address_in_use: return "the address cannot be listened on";
      case Errc::not_founded:
        return "the directory is new, and the member was told neither to found nor to join a cluster";
      case Errc::wrong_cluster: return "the other side belongs to another cluster or is another node";
      case Errc::version_unsupported: return "the format version is not known to this build";
      case Errc::map_full: return "the database reached its map size";
      case Errc::too_many_readers: return "too many read transactions are open";
      case Errc::stopped: return "this member stopped itself because of a local fault";
      case Errc::forked: return "the database was opened before a fork and belongs to the parent process";
      case Errc::session_full: return "the session holds too many unacknowledged results";
      case Errc::too_many_tables: return "the limit of named tables is reached";
      case Errc::closed: return "closed";
      case Errc::not_found: return "not found";
      case Errc::removed: return "this member was removed from its cluster";
    }
    return "unknown error";
  }
};

}  // namespace

const std::error_category& category() noexcept {
  static const Category instance;
  return instance;
}

std::error_code make_error_code(Errc code) noexcept {
  return {static_cast<int>(code), category()};
}

std::string_view to_string(Role role) noexcept {
  switch (role) {
    case Role::follower: return "follower";
    case Role::pre_candidate: return "pre_candidate";
    case Role::candidate: return "candidate";
    case Role::leader: return "leader";
  }
  return "?";
}

}  // namespace flotilla
