#include "member_process.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace catalog {

using flotilla::Errc;
using flotilla::fail;
using flotilla::Result;

namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  void reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

tl::unexpected<flotilla::Error> system_error(const std::string& what) {
  return fail(Errc::io_error, what + ": " + std::strerror(errno));
}

/// Reads up to the first newline or the end; timeout.
Result<std::string> read_line(int fd, std::chrono::milliseconds deadline) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  std::string line;
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    if (left.count() <= 0) return fail(Errc::timeout, "it did not become ready in time");
    pollfd poll_fd{fd, POLLIN, 0};
    if (::poll(&poll_fd, 1, static_cast<int>(left.count())) <= 0) continue;
    char byte = 0;
    if (::read(fd, &byte, 1) != 1) return fail(Errc::io_error, "it ended before it was ready");
    if (byte == '\n') return line;
    line += byte;
  }
}

}  // namespace

Result<flotilla::Address> free_loopback_address() {
  const Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (socket.get() < 0 || ::bind(socket.get(), generic, size) != 0 ||
      ::getsockname(socket.get(), generic, &size) != 0) {
    return system_error("no free port");
  }
  return "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
}

MemberProcess::MemberProcess(MemberProcess&& other) noexcept
    : options_(std::move(other.options_)), pid_(std::exchange(other.pid_, -1)) {}

Result<void> MemberProcess::spawn(int ready_pipe) {
  std::filesystem::create_directories(options_.directory);
  std::vector<std::string> words{options_.program, "--data", options_.directory / "data", "--listen", options_.listen};
  if (options_.join.empty()) {
    words.emplace_back("--found");
  } else {
    words.insert(words.end(), {"--join", options_.join});
  }
  words.insert(words.end(), options_.more_arguments.begin(), options_.more_arguments.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const std::string log = options_.directory / "member.log";
  const Descriptor errors(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (errors.get() < 0) return system_error(log);

  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return system_error("fork");
  if (child == 0) {
    // Only async-signal-safe calls from here to exec.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(126);
    ::dup2(ready_pipe, STDOUT_FILENO);
    ::dup2(errors.get(), STDERR_FILENO);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  pid_ = child;
  return {};
}

Result<void> MemberProcess::start(std::chrono::milliseconds deadline) {
  if (running()) return fail(Errc::invalid_argument, "the member runs already");
  std::array<int, 2> ends{-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return system_error("pipe");
  const Descriptor from(ends[0]);
  Descriptor to(ends[1]);
  if (auto ok = spawn(to.get()); !ok) return ok;
  to.reset();
  const Result<std::string> line = read_line(from.get(), deadline);
  if (line && line->rfind("ready ", 0) == 0) return {};
  kill();
  const std::string why = line ? "it said: " + *line : line.error().message();
  return fail(line ? Errc::io_error : Errc::timeout, options_.listen + ": " + why + "\n" + last_words());
}

void MemberProcess::kill() {
  if (!running()) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
}

Result<int> MemberProcess::stop() {
  if (!running()) return fail(Errc::invalid_argument, "the member does not run");
  ::kill(pid_, SIGTERM);
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  if (!WIFEXITED(status)) return fail(Errc::io_error, "it was ended by signal " + std::to_string(WTERMSIG(status)));
  return WEXITSTATUS(status);
}

std::string MemberProcess::last_words() const {
  std::ifstream file(options_.directory / "member.log");
  std::stringstream all;
  all << file.rdbuf();
  const std::string text = all.str();
  return text.substr(text.size() - std::min<std::size_t>(text.size(), 2000));
}

}  // namespace catalog
