// Somebody on the network of simulated members who belongs to none of them.
#pragma once

#include "net/mux.hpp"
#include "sim_members.hpp"

namespace flotilla::sim {

struct Stranger {
  explicit Stranger(Members& members)
      : loop(members.scheduler), transport(members.network, loop, "10.0.0.9"), mux(loop, transport, {}) {}
  net::Hello hello(const SimMember& to) const { return {to.status().cluster_id, id, 1, {}}; }

  static constexpr NodeId id{77};
  test::SimLoop loop;
  test::SimTransport transport;
  net::Mux mux;
};

}  // namespace flotilla::sim
