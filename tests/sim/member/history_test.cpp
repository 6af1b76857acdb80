// The checker is itself checked: histories that are right, and histories that are wrong in one subtle way each.
//
// One event per word group, in the order of time:
//   ask SESSION KEY [fails]        a client asks; operations are numbered 1, 2, 3, ...
//   run ID INDEX                   the command runs on some member
//   ok ID RESULT | failed ID | unknown ID | refused ID      the call ends
//   local SESSION KEY | linear SESSION KEY                  a read begins; numbered 1, 2, 3, ...
//   saw READ LENGTH INDEX          it ends
#include <sstream>

#include <doctest/doctest.h>

#include "sim/member/history.hpp"

namespace flotilla::sim {
namespace {

std::string verdict_on(const std::string& text) {
  History history;
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line, ';')) {
    std::istringstream words(line);
    std::string what, key, rest;
    std::uint64_t number = 0, index = 0;
    words >> what >> number;
    if (what == "ask") {
      words >> key;
      const bool fails = static_cast<bool>(words >> rest) && rest == "fails";
      words.clear();
      history.ask(number, key, fails);
    } else if (what == "run") {
      words >> index;
      history.ran(number, Index{index});
    } else if (what == "ok") {
      words >> rest;
      history.answer(number, rest);
    } else if (what == "failed") {
      history.answer(number, fail(Errc::command_failed, "on purpose"));
    } else if (what == "unknown") {
      history.answer(number, fail(Errc::outcome_unknown, "its leader is gone"));
    } else if (what == "refused") {
      history.answer(number, fail(Errc::no_leader, "it was not sent"));
    } else if (what == "local" || what == "linear") {
      words >> key;
      history.ask_read(number, key, what == "local" ? History::ReadKind::local : History::ReadKind::linearizable);
    } else if (what == "saw") {
      std::size_t length = 0;
      words >> length >> index;
      history.saw(number, length, Index{index});
    } else {
      FAIL("no such event: " << what);
    }
    REQUIRE_FALSE(words.fail());
  }
  history.check();
  return history.first_broken().value_or("");
}

}  // namespace

TEST_SUITE("sim.history") {
  TEST_CASE("a history that may have been is accepted") {
    struct Case {
      const char* name;
      const char* events;
    };
    const Case cases[] = {
        {"nothing happened", ""},
        {"one write", "ask 1 a;run 1 5;ok 1 1"},
        {"one after the other", "ask 1 a;run 1 5;ok 1 1;ask 1 a;run 2 6;ok 2 2"},
        {"at the same time, the later asked runs first", "ask 1 a;ask 2 a;run 2 5;run 1 6;ok 1 2;ok 2 1"},
        {"the answer comes after the next one ran", "ask 1 a;run 1 5;ask 2 a;run 2 6;ok 2 2;ok 1 1"},
        {"lists are counted apart", "ask 1 a;run 1 5;ok 1 1;ask 1 b;run 2 6;ok 2 1"},
        {"every member runs it", "ask 1 a;run 1 5;run 1 5;ok 1 1;run 1 5"},
        {"an unknown one took effect", "ask 1 a;unknown 1;run 1 5;ask 1 a;run 2 6;ok 2 2"},
        {"an unknown one takes effect long after", "ask 1 a;unknown 1;ask 1 a;run 2 5;ok 2 1;run 1 9"},
        {"an unknown one never took effect", "ask 1 a;unknown 1;ask 1 a;run 2 6;ok 2 1"},
        {"a refused one never took effect", "ask 1 a;refused 1;ask 1 a;run 2 6;ok 2 1"},
        {"one whose caller died took effect", "ask 1 a;run 1 5;ask 2 a;run 2 6;ok 2 2"},
        {"one whose caller died did not", "ask 1 a;ask 2 a;run 2 6;ok 2 1"},
        {"a failing command leaves nothing", "ask 1 a fails;run 1 5;failed 1;ask 1 a;run 2 6;ok 2 1"},
        {"a failing command with an unknown outcome", "ask 1 a fails;unknown 1;run 1 5;ask 1 a;run 2 6;ok 2 1"},
        {"a read of the state before a write that runs meanwhile", "ask 1 a;linear 2 a;run 1 5;saw 1 0 4;ok 1 1"},
        {"a read of the state after a write that is not answered", "ask 1 a;run 1 5;linear 2 a;saw 1 1 5;ok 1 1"},
        {"a read at an index of no command", "ask 1 a;run 1 5;ok 1 1;linear 2 a;saw 1 1 9"},
        {"another session's local read is stale", "ask 1 a;run 1 5;ok 1 1;local 2 a;saw 1 0 4"},
        {"a local read is older than another session's read",
         "ask 1 a;run 1 5;linear 2 a;saw 1 1 5;local 3 a;saw 2 0 4"},
        {"a read that never ends", "linear 1 a;ask 1 a;run 1 5;ok 1 1"},
        {"two reads at once, the later asked sees less", "ask 1 a;linear 2 a;linear 3 a;run 1 5;saw 1 1 5;saw 2 0 4"},
    };
    for (const Case& one : cases) {
      CAPTURE(std::string(one.name));
      CHECK(verdict_on(one.events) == "");
    }
  }

  TEST_CASE("a history that cannot have been is rejected for what is wrong with it") {
    struct Case {
      const char* name;
      const char* events;
      const char* verdict;
    };
    const Case cases[] = {
        {"lost update: two are told the same length", "ask 1 a;ask 2 a;run 1 5;run 2 6;ok 1 1;ok 2 1",
         "operation 2 at index 6 answered 1, the model 2"},
        {"lost update: a read misses the first of two",
         "ask 1 a;run 1 5;ok 1 1;ask 1 a;run 2 6;ok 2 2;linear 2 a;saw 1 1 6",
         "read 1 of 'a' at index 6 saw 1 values, the model 2"},
        {"acknowledged and never run", "ask 1 a;ok 1 1", "operation 1 was acknowledged and never ran"},
        {"acknowledged before it runs", "ask 1 a;ok 1 1;run 1 5", "operation 1 was acknowledged and never ran"},
        {"a failure is acknowledged and never run", "ask 1 a fails;failed 1",
         "operation 1 was acknowledged and never ran"},
        {"duplicate apply", "ask 1 a;run 1 5;run 1 7;ok 1 1", "operation 1 ran at index 5 and again at 7"},
        {"duplicate apply of an unknown one", "ask 1 a;unknown 1;run 1 5;run 1 6",
         "operation 1 ran at index 5 and again at 6"},
        {"two members run different commands at one index", "ask 1 a;ask 2 b;run 1 5;run 2 5",
         "index 5 ran operation 1 on one member and 2 on another"},
        {"a command out of nowhere", "run 1 5", "operation 1 ran, and nobody asked for it"},
        {"refused, and took effect", "ask 1 a;refused 1;run 1 5", "operation 1 was refused (it was not sent)"},
        {"refused after it took effect", "ask 1 a;run 1 5;refused 1", "operation 1 was refused (it was not sent)"},
        {"told that it failed, which it does not", "ask 1 a;run 1 5;failed 1",
         "operation 1 was refused (on purpose) and took effect"},
        {"told that it succeeded, which it cannot", "ask 1 a fails;run 1 5;ok 1 1",
         "operation 1 fails, and its caller was told 1"},
        {"a failing command left its value", "ask 1 a fails;run 1 5;failed 1;linear 1 a;saw 1 1 5",
         "read 1 of 'a' at index 5 saw 1 values, the model 0"},
        {"a failing command left its value for the next", "ask 1 a fails;run 1 5;failed 1;ask 1 a;run 2 6;ok 2 2",
         "operation 2 at index 6 answered 2, the model 1"},
        {"the result of another call", "ask 1 a;ask 2 b;run 1 5;run 2 6;ok 1 1;ask 1 a;run 3 7;ok 2 2;ok 3 1",
         "operation 2 at index 6 answered 2, the model 1"},
        {"two calls get each other's result", "ask 1 a;ask 2 a;run 1 5;run 2 6;ok 1 2;ok 2 1",
         "operation 1 at index 5 answered 2, the model 1"},
        {"a result that is no length", "ask 1 a;run 1 5;ok 1 one", "operation 1 at index 5 answered one, the model 1"},
        {"an empty result", "ask 1 a;run 1 5;ok 1 0", "operation 1 at index 5 answered 0, the model 1"},
        {"ended twice", "ask 1 a;run 1 5;ok 1 1;unknown 1", "operation 1 ended twice"},
        {"asked after the answer, and run before", "ask 1 a;run 1 6;ok 1 1;ask 2 b;run 2 5;ok 2 1",
         "operation 2 was asked when index 6 was known, and ran at 5"},
        {"asked after a failure was known, and run before", "ask 1 a fails;run 1 6;failed 1;ask 2 b;run 2 5;ok 2 1",
         "operation 2 was asked when index 6 was known, and ran at 5"},
        {"an unknown one takes effect before it was asked", "ask 1 a;run 1 6;ok 1 1;ask 2 b;unknown 2;run 2 5",
         "operation 2 was asked when index 6 was known, and ran at 5"},
        {"written after a read, and run before what it saw", "ask 1 a;run 1 6;linear 2 a;saw 1 1 6;ask 3 b;run 2 5",
         "operation 2 was asked when index 6 was known, and ran at 5"},
        {"a stale read", "ask 1 a;run 1 5;ok 1 1;linear 2 a;saw 1 0 4", "read 1 at index 4 misses what was known at 5"},
        {"stale by one", "ask 1 a;run 1 5;ok 1 1;ask 1 a;run 2 6;ok 2 2;linear 2 a;saw 1 1 5",
         "read 1 at index 5 misses what was known at 6"},
        {"a stale read of a list that nobody wrote", "ask 1 a;run 1 5;ok 1 1;linear 2 b;saw 1 0 4",
         "read 1 at index 4 misses what was known at 5"},
        {"reads on two members in the wrong order", "ask 1 a;run 1 5;linear 2 a;saw 1 1 5;linear 3 a;saw 2 0 4;ok 1 1",
         "read 2 at index 4 misses what was known at 5"},
        {"a linearizable read is older than a local one", "ask 1 a;run 1 5;local 1 a;saw 1 1 5;linear 2 a;saw 2 0 4",
         "read 2 at index 4 misses what was known at 5"},
        {"a session does not see its own write", "ask 1 a;run 1 5;ok 1 1;local 1 a;saw 1 0 4",
         "read 1 at index 4 misses what was known at 5"},
        {"a session's reads go back", "ask 2 a;run 1 5;local 1 a;saw 1 1 5;local 1 a;saw 2 0 4",
         "read 2 at index 4 misses what was known at 5"},
        {"a session's local read is older than its linearizable one",
         "ask 2 a;run 1 5;linear 1 a;saw 1 1 5;local 1 a;saw 2 0 4", "read 2 at index 4 misses what was known at 5"},
        {"a read of the future", "ask 1 a;linear 2 a;saw 1 1 5;run 1 5;ok 1 1",
         "read 1 of 'a' at index 5 saw what had not run anywhere"},
        {"a read of a value that a later write brings", "ask 1 a;ask 1 a;run 1 5;linear 2 a;saw 1 2 5;run 2 6",
         "read 1 of 'a' at index 5 saw 2 values, the model 1"},
        {"a read of another list", "ask 1 a;run 1 5;ok 1 1;linear 2 b;saw 1 1 5",
         "read 1 of 'b' at index 5 saw 1 values, the model 0"},
        {"a read misses what its own index includes", "ask 1 a;run 1 5;linear 2 a;saw 1 0 5",
         "read 1 of 'a' at index 5 saw 0 values, the model 1"},
    };
    for (const Case& one : cases) {
      CAPTURE(std::string(one.name));
      CHECK(verdict_on(one.events).starts_with(one.verdict));
    }
  }
}

}  // namespace flotilla::sim
