#include "node/calls.hpp"

#include <doctest/doctest.h>

using flotilla::Bytes;
using flotilla::Errc;
using flotilla::Error;
using flotilla::Result;
using flotilla::node::Calls;
using flotilla::node::Done;

namespace {

Done ignore() {
  return Done(flotilla::Completion([](Result<Bytes>) {}));
}

std::uint64_t begin(Calls& calls, std::size_t bytes = 1) {
  Done done = ignore();
  return calls.begin(bytes, done).value().id.sequence;
}

}  // namespace

TEST_SUITE_BEGIN("node.calls");

TEST_CASE("a call is ended by whoever takes it first, and only once") {
  Calls calls(7, {100, 10});
  int ended = 0;
  Done done(flotilla::Completion([&](Result<Bytes>) { ++ended; }));
  const auto ticket = calls.begin(1, done);
  REQUIRE(ticket);
  CHECK(ticket->id.session == 7);
  auto first = calls.take(ticket->id.sequence);
  REQUIRE(first);
  (*first)(Bytes("x"));
  CHECK_FALSE(calls.take(ticket->id.sequence));
  CHECK(ended == 1);
  CHECK(calls.size() == 0);
}

TEST_CASE("sequences grow by one and acknowledged_below names the oldest call that has not ended") {
  Calls calls(7, {100, 10});
  Done done = ignore();
  CHECK(calls.begin(1, done)->acknowledged_below == 1);
  const std::uint64_t second = begin(calls);
  const std::uint64_t third = begin(calls);
  CHECK(second == 2);
  static_cast<void>(calls.take(second));
  Done fourth = ignore();
  CHECK(calls.begin(1, fourth)->acknowledged_below == 1);
  static_cast<void>(calls.take(1));
  Done fifth = ignore();
  CHECK(calls.begin(1, fifth)->acknowledged_below == third);
}

TEST_CASE("calls beyond either bound are refused as overloaded, and admitted again once others ended") {
  Calls calls(7, {100, 3});
  const std::uint64_t first = begin(calls, 60);
  Done done = ignore();
  CHECK(calls.begin(60, done).error() == Errc::overloaded);
  begin(calls, 20);
  begin(calls, 20);
  CHECK(calls.begin(0, done).error() == Errc::overloaded);
  static_cast<void>(calls.take(first));
  CHECK(calls.begin(60, done));
}

TEST_CASE("one call larger than the bound is admitted when nothing else waits") {
  Calls calls(7, {100, 3});
  CHECK(begin(calls, 1000) == 1);
}

TEST_CASE("a refused call keeps its completion") {
  Calls calls(7, {100, 3});
  calls.refuse_new(Error(Errc::stopped));
  bool ended = false;
  Done done(flotilla::Completion([&](Result<Bytes> result) { ended = result.error() == Errc::stopped; }));
  const auto ticket = calls.begin(1, done);
  REQUIRE_FALSE(ticket);
  done(flotilla::fail(ticket.error()));
  CHECK(ended);
}

TEST_CASE("what a completion throws is dropped") {
  Done done(flotilla::Completion([](Result<Bytes>) { throw 1; }));
  CHECK_NOTHROW(done(Bytes()));
}

TEST_SUITE_END();
