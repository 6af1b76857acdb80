// What this machine can do at best: the floor under every figure of a benchmark that runs on it.
//
//   machine --directory DIR [--milliseconds N]
//
// Prints one JSON object, medians in microseconds:
//   sync         4 KiB into a file that was written before, and fdatasync
//   sync_three   the same by three processes at once, each with a file of its own
//   sync_64k     64 KiB
//   round_trip   64 B there and back between two processes over loopback TCP
//   wake_up      from a condition variable's notify to the other thread's answer, halved
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fmt/format.h>

namespace {

using Clock = std::chrono::steady_clock;

struct Settings {
  std::filesystem::path directory;
  std::chrono::milliseconds time{1000};
};

/// Calls `step` for so long; the median of how long it took.
template <class Step>
double median(std::chrono::milliseconds time, Step step) {
  std::vector<double> took;
  for (const auto end = Clock::now() + time; Clock::now() < end;) {
    const auto begin = Clock::now();
    step();
    took.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
  }
  if (took.empty()) return 0;
  const auto middle = took.begin() + static_cast<std::ptrdiff_t>(took.size() / 2);
  std::nth_element(took.begin(), middle, took.end());
  return *middle;
}

void check(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(fmt::format("{}: {}", what, std::strerror(errno)));
}

double sync_median(const Settings& settings, std::size_t bytes, std::string_view name) {
  constexpr std::size_t file_bytes = 16u << 20;
  const std::string path = settings.directory / name;
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  check(file >= 0, path.c_str());
  const std::string zeros(1u << 20, '\0');
  for (std::size_t at = 0; at < file_bytes; at += zeros.size()) {
    check(::pwrite(file, zeros.data(), zeros.size(), static_cast<off_t>(at)) > 0, "write");
  }
  check(::fsync(file) == 0, "sync");
  std::size_t at = 0;
  const std::string block(bytes, 'x');
  const double result = median(settings.time, [&] {
    check(::pwrite(file, block.data(), bytes, static_cast<off_t>(at)) > 0, "write");
    check(::fdatasync(file) == 0, "sync");
    at = (at + bytes) % file_bytes;
  });
  ::close(file);
  ::unlink(path.c_str());
  return result;
}

/// Runs it in a process of its own, so that nothing is shared.
template <class Work>
class Child {
 public:
  explicit Child(Work work) : pid_(::fork()) {
    if (pid_ != 0) return;
    work();
    ::_exit(0);
  }
  ~Child() { ::waitpid(pid_, nullptr, 0); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

 private:
  pid_t pid_;
};

double sync_of_three(const Settings& settings) {
  const Child second([&] { sync_median(settings, 4096, "second"); });
  const Child third([&] { sync_median(settings, 4096, "third"); });
  return sync_median(settings, 4096, "first");
}

void no_delay(int socket) {
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

double round_trip(const Settings& settings) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  check(::bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0 && ::listen(listener, 1) == 0 &&
            ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0,
        "listen on loopback");
  char message[64]{};
  const Child echo([&] {
    const int peer = ::accept(listener, nullptr, nullptr);
    no_delay(peer);
    while (::recv(peer, message, sizeof message, MSG_WAITALL) == sizeof message) {
      if (::send(peer, message, sizeof message, 0) != sizeof message) break;
    }
  });
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  check(::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "connect");
  no_delay(socket);
  const double result = median(settings.time, [&] {
    check(::send(socket, message, sizeof message, 0) == sizeof message, "send");
    check(::recv(socket, message, sizeof message, MSG_WAITALL) == sizeof message, "receive");
  });
  ::close(socket);
  ::close(listener);
  return result;
}

double wake_up(const Settings& settings) {
  std::mutex mutex;
  std::condition_variable changed;
  int turn = 0;  // 0: ours, 1: the other's, 2: the end
  std::thread other([&] {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return turn != 0; });
      if (turn == 2) return;
      turn = 0;
      changed.notify_all();
    }
  });
  const double result = median(settings.time, [&] {
    std::unique_lock lock(mutex);
    turn = 1;
    changed.notify_all();
    changed.wait(lock, [&] { return turn == 0; });
  });
  {
    const std::lock_guard lock(mutex);
    turn = 2;
    changed.notify_all();
  }
  other.join();
  return result / 2;
}

}  // namespace

int main(int count, char** words) try {
  Settings settings;
  for (int at = 1; at + 1 < count; at += 2) {
    const std::string_view word = words[at];
    if (word == "--directory") settings.directory = words[at + 1];
    if (word == "--milliseconds") settings.time = std::chrono::milliseconds(std::strtol(words[at + 1], nullptr, 10));
  }
  if (settings.directory.empty() || settings.time.count() <= 0) {
    fmt::print(stderr, "usage: machine --directory DIR [--milliseconds N]\n");
    return 2;
  }
  const double sync = sync_median(settings, 4096, "first");
  const double sync_64k = sync_median(settings, 64u << 10, "first");
  fmt::print(
      "{{\"sync\": {:.1f}, \"sync_64k\": {:.1f}, \"sync_three\": {:.1f}, \"round_trip\": {:.1f}, \"wake_up\": "
      "{:.1f}}}\n",
      sync, sync_64k, sync_of_three(settings), round_trip(settings), wake_up(settings));
} catch (const std::exception& error) {
  fmt::print(stderr, "machine: {}\n", error.what());
  return 1;
}
