// A change of members, or of who leads: what is asked for, and how a leader carries it out, one step at a time.
//
// A leader keeps nothing about a change. Whoever issued it asks again until it is so (changes.hpp), and each time the
// leader looks at the configuration in force and takes the next step from there. So a change survives the loss of the
// leader at any point, and asking twice is harmless.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "flotilla/error.hpp"
#include "flotilla/status.hpp"
#include "raft/core.hpp"
#include "state/store.hpp"

namespace flotilla::node {

struct Change {
  enum class Kind : std::uint8_t {
    join = 0,  ///< a member asks for itself: members[0], unless it is one already, then only its address counts
    add_learner = 1,
    promote = 2,
    remove = 3,
    replace = 4,
    configure = 5,
    transfer = 6,
  };
  Kind kind = Kind::configure;
  NodeId id;  ///< promote, remove: whom; replace: whom to remove; transfer: from whom, 0 not known yet
  NodeId to;  ///< transfer: to whom; 0: to any
  std::vector<Member> members;  ///< join, add_learner, replace: the one to add; configure: all, sorted by id

  static Change join(Member member);
  static Change add_learner(NodeId id, Address address);
  static Change promote(NodeId id);
  static Change remove(NodeId id);
  static Change replace(NodeId old, Member replacement);
  static Change configure(std::vector<Member> members);
  static Change transfer(std::optional<NodeId> to);

  friend bool operator==(const Change&, const Change&) = default;
};

/// u8 kind, u64 id, u64 to, u32 count, then so many members: u64 id, u8 voter, address (u32 length, bytes).
std::string encode(const Change& change);
/// nullopt: malformed, a join, or what refuse_unsent() refuses.
std::optional<Change> decode_change(std::string_view bytes);

/// Refuses what is too large to be sent.
std::optional<Error> refuse_unsent(const Change& change);

/// Whether these members are what the change asks for. Not for transfer.
bool is_done(const Change& change, const std::vector<Member>& members);

/// What a leader answers.
struct ChangeAnswer {
  enum class Verdict : std::uint8_t {
    done = 0,      ///< it is so already
    appended = 1,  ///< the last step is in the log, at `position`
    begun = 2,     ///< something was done, and more has to be: ask again
    later = 3,     ///< nothing was done, for the moment: ask again
    refused = 4,   ///< for good; nothing was done
  };
  Verdict verdict = Verdict::later;
  raft::Core::Position position;
  Error reason{Errc::overloaded, std::string()};  ///< later, refused: why; begun: what it waits for
};

/// What carry_out() goes by. Thread: loop.
struct LeaderView {
  raft::Core& core;
  const state::Store& store;
  Index applied_index;
  const Address& own_address;
  std::uint64_t time = 0;        ///< wall clock, for entries
  unsigned patience_ticks = 10;  ///< a member silent for longer is not handed view
};

/// Takes the next step. Requires: nothing; a member that does not lead answers `later`.
ChangeAnswer carry_out(const Change& change, const LeaderView& view);

/// What a leader changes unasked: its own address after a move, then joining learners that have caught up.
std::optional<raft::Configuration> upkeep(const raft::Core& core, const state::Store& store,
                                          const Address& own_address);

}  // namespace flotilla::node
