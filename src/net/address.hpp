// "host:port" and "[v6]:port".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "flotilla/error.hpp"
#include "flotilla/types.hpp"

namespace flotilla::net {

struct HostPort {
  std::string host;  ///< a name or an address without brackets; empty: all interfaces
  std::uint16_t port = 0;

  friend bool operator==(const HostPort&, const HostPort&) = default;
};

/// invalid_argument: no port, a port over 65535, an IPv6 host without brackets, or bytes that no host name has.
Result<HostPort> parse_address(std::string_view address);
Address format_address(std::string_view host, std::uint16_t port);
/// The address without its port: what a cap per address counts.
std::string_view host_of(std::string_view address);

}  // namespace flotilla::net
