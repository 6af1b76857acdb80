// One member of a replicated package catalogue:
//
//   catalogd --data DIR --listen HOST:PORT (--found | --join HOST:PORT [--join ...]) [--trailing ENTRIES]
//
// Prints "ready HOST:PORT" once it serves, and runs until SIGTERM or SIGINT. Raft and the catalogue's own protocol
// (wire.hpp) share the one port.
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>

#include <pthread.h>

#include <fmt/format.h>

#include "catalog.hpp"
#include "flotilla/db.hpp"
#include "session.hpp"
#include "wire.hpp"

namespace {

bool parse(int count, char** words, flotilla::Options& options) {
  for (int at = 1; at < count; ++at) {
    const std::string_view word = words[at];
    if (word == "--found") {
      options.found = true;
      continue;
    }
    if (at + 1 == count) return false;
    const char* value = words[++at];
    if (word == "--data") {
      options.data_dir = value;
    } else if (word == "--listen") {
      options.listen = value;
    } else if (word == "--join") {
      options.join.emplace_back(value);
    } else if (word == "--trailing") {
      // A log so short that a member that was away needs a snapshot: to see one happen.
      options.trailing_entries = std::strtoull(value, nullptr, 10);
      options.checkpoint_interval = std::chrono::milliseconds(50);
      options.log_cache_bytes = 16u << 10;
      options.segment_bytes = 64u << 10;
    } else {
      return false;
    }
  }
  return !options.data_dir.empty() && !options.listen.empty();
}

/// The threads of all connections: each is joined once its session has ended, at the latest by the destructor.
class Sessions {
 public:
  explicit Sessions(flotilla::DB& db) : db_(db) {}
  ~Sessions() {
    for (Running& one : running_) one.thread.join();
  }
  Sessions(const Sessions&) = delete;
  Sessions& operator=(const Sessions&) = delete;

  void start(flotilla::Stream stream) {
    auto session = std::make_shared<catalog::Session>(db_, std::move(stream));
    auto ended = std::make_shared<std::atomic<bool>>(false);
    const std::scoped_lock lock(mutex_);
    running_.remove_if([](Running& one) {
      if (!*one.ended) return false;
      one.thread.join();
      return true;
    });
    running_.push_back({ended, std::thread([session, ended] {
                          session->run();
                          *ended = true;
                        })});
  }

 private:
  struct Running {
    std::shared_ptr<std::atomic<bool>> ended;
    std::thread thread;
  };
  flotilla::DB& db_;
  std::mutex mutex_;
  std::list<Running> running_;
};

}  // namespace

int main(int count, char** words) {
  flotilla::Options options;
  if (!parse(count, words, options)) {
    fmt::print(stderr,
               "usage: catalogd --data DIR --listen HOST:PORT (--found | --join HOST:PORT ...) [--trailing ENTRIES]\n");
    return 2;
  }
  // Before any thread is there, so that every thread inherits it and the signals reach sigwait() alone.
  sigset_t stops;
  sigemptyset(&stops);
  sigaddset(&stops, SIGTERM);
  sigaddset(&stops, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stops, nullptr);

  flotilla::Result<flotilla::DB> db = flotilla::DB::open(options, catalog::commands());
  if (!db) {
    fmt::print(stderr, "catalogd: {}\n", db.error().message());
    return 1;
  }
  Sessions sessions(*db);
  const auto serving = db->service(catalog::service_tag, [&](flotilla::Stream s) { sessions.start(std::move(s)); });
  if (!serving) {
    fmt::print(stderr, "catalogd: {}\n", serving.error().message());
    return 1;
  }
  fmt::print("ready {}\n", db->status().listen);
  std::fflush(stdout);

  int signal = 0;
  sigwait(&stops, &signal);
  // Ends every stream and every call, so the sessions' threads end too.
  const auto closed = db->close();
  if (!closed) fmt::print(stderr, "catalogd: {}\n", closed.error().message());
  return closed ? 0 : 1;
}
