// A hash over the tables of the application: equal exactly if their contents are, whatever the pages are that hold
// them.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <string_view>

#include <xxhash.h>

#include "flotilla/txn.hpp"

namespace flotilla::state {

/// Tables in order of their names, each before its pairs, which are in order of keys, then values.
class ContentHash {
 public:
  ContentHash() : state_(XXH3_createState()) {
    if (state_ == nullptr) throw std::bad_alloc();
    XXH3_64bits_reset(state_.get());
  }
  void table(std::string_view name, TableKind kind, std::uint64_t pairs) {
    add(name);
    add_number(static_cast<std::uint64_t>(kind));
    add_number(pairs);
  }
  void pair(std::string_view key, std::string_view value) {
    add(key);
    add(value);
  }
  std::uint64_t digest() const { return XXH3_64bits_digest(state_.get()); }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const noexcept { XXH3_freeState(state); }
  };
  void add_number(std::uint64_t number) { XXH3_64bits_update(state_.get(), &number, sizeof number); }
  // Lengths first, so that no two different contents run together into the same bytes.
  void add(std::string_view bytes) {
    add_number(bytes.size());
    XXH3_64bits_update(state_.get(), bytes.data(), bytes.size());
  }

  std::unique_ptr<XXH3_state_t, Free> state_;
};

}  // namespace flotilla::state
