// One connection to catalogd: reads requests, answers them from the database.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "flotilla/db.hpp"
#include "flotilla/stream.hpp"
#include "wire.hpp"

namespace catalog {

/// Requests: upsert IDENTITY REVISION|- (body: the record) | status | revisions | hash | needs NAME | section NAME |
/// show KEY (the body). Commands overlap, at most `in_flight_max` of them; queries are answered from a local snapshot.
class Session : public std::enable_shared_from_this<Session> {
 public:
  static constexpr std::size_t in_flight_max = 512;

  Session(flotilla::DB& db, flotilla::Stream stream) : db_(db), stream_(std::move(stream)), reader_(stream_) {}
  /// Returns when the peer or the database has closed the stream. Blocks; runs a second thread that writes.
  void run();

 private:
  void dispatch(Message request);
  void upsert(Message request);
  void answer(const std::string& id, std::string outcome, std::string body);
  void answer_error(const std::string& id, const flotilla::Error& error);
  void write_answers();

  flotilla::DB& db_;
  flotilla::Stream stream_;
  MessageReader reader_;

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<std::string> answers_;
  std::size_t in_flight_ = 0;
  bool ended_ = false;
};

}  // namespace catalog
