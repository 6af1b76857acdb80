#include "net/address.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

namespace flotilla::net {
namespace {

constexpr std::size_t host_bytes_max = 255;

bool host_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_' || c == ':' || c == '%';
}

auto malformed(std::string_view address) {
  return fail(Errc::invalid_argument, fmt::format("'{}' is not host:port or [v6]:port", address.substr(0, 300)));
}

}  // namespace

Result<HostPort> parse_address(std::string_view address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) return malformed(address);
  std::string_view host = address.substr(0, colon);
  const std::string_view port = address.substr(colon + 1);
  if (host.starts_with('[')) {
    if (!host.ends_with(']') || host.size() < 3) return malformed(address);
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return malformed(address);
  }
  if (host.size() > host_bytes_max || !std::all_of(host.begin(), host.end(), host_byte)) return malformed(address);
  HostPort parsed;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), parsed.port);
  if (port.empty() || error != std::errc() || end != port.data() + port.size()) return malformed(address);
  parsed.host = host;
  return parsed;
}

Address format_address(std::string_view host, std::uint16_t port) {
  if (host.find(':') != std::string_view::npos) return fmt::format("[{}]:{}", host, port);
  return fmt::format("{}:{}", host, port);
}

std::string_view host_of(std::string_view address) {
  const std::size_t colon = address.rfind(':');
  return colon == std::string_view::npos ? address : address.substr(0, colon);
}

}  // namespace flotilla::net
