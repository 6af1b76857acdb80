// Reads what members say to each other off the simulated network: the bytes as they leave, before any fault. What a
// member promised is what left it, whatever its core believes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string_view>

#include "raft/message.hpp"

namespace flotilla::sim {

class Wiretap {
 public:
  explicit Wiretap(std::function<void(const raft::Message&)> said) : said_(std::move(said)) {}

  /// More bytes were sent on a socket. False: they are no messages of members, or no more of them.
  bool sent(std::uint64_t socket, std::string_view bytes);

 private:
  struct Stream;
  std::function<void(const raft::Message&)> said_;
  std::map<std::uint64_t, std::shared_ptr<Stream>> streams_;
};

}  // namespace flotilla::sim
