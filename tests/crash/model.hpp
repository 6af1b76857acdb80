// What the commands of the crash harness do, to a database and to a model of it; and what is right at each index.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "flotilla/command.hpp"
#include "raft/entry.hpp"

namespace crash {

/// SplitMix64.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t operator()() {
    std::uint64_t value = state_ += 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
  }
  std::uint64_t below(std::uint64_t bound) { return (*this)() % bound; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }

 private:
  std::uint64_t state_;
};

/// A new stream of numbers for each combination.
std::uint64_t mixed(std::uint64_t seed, std::uint64_t with);

/// "work": its first argument is a number from which all its writes follow, its second only has length. The result is
/// the index it ran at.
flotilla::Commands commands();
std::string encode_work(std::uint64_t session, std::uint64_t sequence, std::uint64_t acknowledged_below,
                        std::uint64_t number, std::size_t filler_bytes);

/// The database after some entries, as far as its contents matter: a sum of hashes of rows.
class Model {
 public:
  void apply(const flotilla::raft::Entry& entry);
  std::uint64_t sum() const { return sum_; }
  bool session_open(std::uint64_t session) const { return sessions_.contains(session); }

  void put(const std::string& table, const std::string& key, const std::string& value);
  void remove(const std::string& table, const std::string& key);
  void add(const std::string& table, const std::string& key, const std::string& value);
  void drop(const std::string& table, const std::string& key, const std::string& value);
  void count(std::uint64_t number);

 private:
  std::map<std::string, std::uint64_t> rows_;  // table, zero, key: the row's hash
  std::set<std::string> pairs_;                // sorted duplicates: table, zero, key, zero, value
  std::uint64_t count_ = 0;
  std::uint64_t chain_ = 0;
  std::uint64_t sum_ = 0;
  std::map<std::uint64_t, std::uint64_t> session_of_node_;
  struct Session {
    std::uint64_t acknowledged_below = 0;
    std::set<std::uint64_t> seen;
  };
  std::map<std::uint64_t, Session> sessions_;  // the open ones
};

/// The one committed sequence of a run, and the contents after each entry.
class Truth {
 public:
  /// The newest index.
  std::uint64_t last() const { return entries_.size(); }
  const flotilla::raft::Entry& entry(std::uint64_t index) const { return entries_.at(index - 1); }
  std::uint64_t sum_at(std::uint64_t index) const { return sums_.at(index); }
  const Model& model() const { return model_; }

  /// The next one.
  void add(const flotilla::raft::Entry& entry);
  /// Forgets all after `index`.
  void cut(std::uint64_t index);

 private:
  std::vector<flotilla::raft::Entry> entries_;
  std::vector<std::uint64_t> sums_{0};
  Model model_;
  std::map<std::uint64_t, Model> copies_{{0, Model()}};  // now and then, to go back to
};

}  // namespace crash
