// Raft messages as frames. PROTOCOL.md describes the bytes; golden files in tests/net pin them.
#pragma once

#include <cstdint>
#include <optional>

#include "net/link.hpp"
#include "raft/message.hpp"

namespace flotilla::net {

/// Frame type = position of the body in raft::Body, plus 1. Entries travel as their records; payloads of 4 KiB and more
/// are sent in place.
Frame encode(const raft::Message& message);

/// nullopt: malformed, wrong checksum, not contiguous, or more than the frame holds. Payloads are slices of the frame.
/// `from` and `to` are what the frame says; the caller compares them with the link's Hello.
std::optional<raft::Message> decode(const ReceivedFrame& frame);

}  // namespace flotilla::net
