// The small value types that every layer shares: terms, indexes, identities, addresses.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace flotilla {

/// Owned bytes. Keys, values, arguments and results are uninterpreted; a zero byte is like any other.
using Bytes = std::string;

/// "host:port"; an IPv6 host stands in brackets. Data, not identity: a member keeps its id when its address changes.
using Address = std::string;

/// A Raft term. Terms begin at 1; 0 means "none yet".
struct Term {
  std::uint64_t value = 0;

  friend constexpr auto operator<=>(const Term&, const Term&) = default;
  constexpr explicit operator bool() const { return value != 0; }
  constexpr Term next() const { return Term{value + 1}; }
};

/// A position in the Raft log. The first entry has index 1; 0 means "before the log".
struct Index {
  std::uint64_t value = 0;

  friend constexpr auto operator<=>(const Index&, const Index&) = default;
  constexpr explicit operator bool() const { return value != 0; }
  constexpr Index next() const { return Index{value + 1}; }
  /// Requires: *this is not 0.
  constexpr Index previous() const { return Index{value - 1}; }
  constexpr Index& operator++() {
    ++value;
    return *this;
  }
  friend constexpr Index operator+(Index index, std::uint64_t count) { return Index{index.value + count}; }
  /// Entries in (right, left]. Requires: left >= right.
  friend constexpr std::uint64_t operator-(Index left, Index right) { return left.value - right.value; }
};

/// Names one member for as long as its disk lives. Drawn at random on its first start, never 0, never used again: an
/// empty disk is a new identity.
struct NodeId {
  std::uint64_t value = 0;

  friend constexpr auto operator<=>(const NodeId&, const NodeId&) = default;
  constexpr explicit operator bool() const { return value != 0; }
};

/// Names one cluster: drawn at random by the founder, stated in every handshake and on every disk.
struct ClusterId {
  std::uint64_t high = 0;
  std::uint64_t low = 0;

  friend constexpr auto operator<=>(const ClusterId&, const ClusterId&) = default;
  constexpr explicit operator bool() const { return high != 0 || low != 0; }
};

}  // namespace flotilla

template <>
struct std::hash<flotilla::NodeId> {
  std::size_t operator()(flotilla::NodeId id) const noexcept { return std::hash<std::uint64_t>{}(id.value); }
};
