// Detects that this process is a fork of the one that opened something, without a system call per look.
#pragma once

#include <cstdint>

namespace flotilla {

/// Differs between a process and its forked children. Thread: any.
std::uint64_t fork_generation() noexcept;

}  // namespace flotilla
