#include "log/file.hpp"

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include "log/identity.hpp"
#include "log/log.hpp"
#include "support.hpp"

using namespace flotilla;
using namespace flotilla::log;
using namespace flotilla::log::test;

namespace {

/// A directory of the real file system, gone at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "flotilla_log_XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Result<void> write(File& file, std::uint64_t offset, std::string_view bytes) {
  const iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  return file.write_at(offset, &part, 1);
}

thread_local int sync_fails_with = 0;  ///< once

}  // namespace

/// In the place of the C library's: no file system lets a sync fail on request.
extern "C" int fdatasync(int descriptor) {
  if (sync_fails_with == 0) return static_cast<int>(::syscall(SYS_fdatasync, descriptor));
  errno = std::exchange(sync_fails_with, 0);
  return -1;
}

TEST_SUITE_BEGIN("log.file");

TEST_CASE("a sync that fails for lack of space is an error of the disk: what it was to keep may be gone (E6)") {
  const TemporaryDirectory directory;
  auto file = posix_file_system().open(directory / "f", FileSystem::Mode::create).value();
  REQUIRE(write(*file, 0, "abc"));
  for (const int number : {ENOSPC, EDQUOT, EIO}) {
    CAPTURE(number);
    sync_fails_with = number;
    CHECK(file->sync().error() == Errc::io_error);
    CHECK(sync_fails_with == 0);
  }
}

TEST_CASE("files hold what is written to them, in memory and on disk alike") {
  const TemporaryDirectory directory;
  MemoryFileSystem memory;
  FileSystem* const systems[] = {&posix_file_system(), &memory};
  for (FileSystem* const files : systems) {
    const bool real = files == systems[0];
    CAPTURE(real);
    const std::string base = real ? directory / "d" : "d";
    CHECK(files->list(base).error() == Errc::not_found);
    CHECK(files->open(base + "/a", FileSystem::Mode::create).error() == Errc::not_found);
    REQUIRE(files->make_directory(base));
    REQUIRE(files->make_directory(base));
    CHECK(files->exists(base).value());
    CHECK(files->open(base + "/a", FileSystem::Mode::open).error() == Errc::not_found);
    {
      auto file = files->open(base + "/a", FileSystem::Mode::create);
      REQUIRE(file);
      CHECK(files->open(base + "/a", FileSystem::Mode::create).error() == Errc::io_error);
      REQUIRE(write(**file, 5, "hello"));
      CHECK((*file)->size().value() == 10);
      REQUIRE((*file)->allocate(8));
      CHECK((*file)->size().value() == 10);
      REQUIRE((*file)->allocate(20));
      CHECK((*file)->size().value() == 20);
      CHECK((*file)->read_at(3, 5).value() == std::string("\0\0hel", 5));
      CHECK((*file)->read_at(15, 100).value() == std::string(5, '\0'));
      CHECK((*file)->read_at(20, 1).value().empty());
      REQUIRE((*file)->sync());
    }
    REQUIRE(files->rename(base + "/a", base + "/b"));
    REQUIRE(files->sync_directory(base));
    CHECK_FALSE(files->exists(base + "/a").value());
    CHECK(files->list(base).value() == std::vector<std::string>{"b"});
    CHECK(files->rename(base + "/a", base + "/c").error() == Errc::not_found);
    REQUIRE(files->remove(base + "/b"));
    CHECK(files->remove(base + "/b").error() == Errc::not_found);
    CHECK(files->sync_directory(base + "/none").error() == Errc::not_found);
    REQUIRE(write_file_durably(*files, base + "/whole", "first"));
    REQUIRE(write_file_durably(*files, base + "/whole", "second"));
    CHECK(read_file(*files, base + "/whole").value() == "second");
    CHECK(read_file(*files, base + "/none").error() == Errc::not_found);
    CHECK(files->list(base).value() == std::vector<std::string>{"whole"});
  }
}

TEST_CASE("a write of thousands of parts, some of them empty, arrives whole") {
  const TemporaryDirectory directory;
  const auto file = posix_file_system().open(directory / "f", FileSystem::Mode::create).value();
  std::string expected;
  std::vector<std::string> pieces;
  for (int at = 0; at < 5000; ++at)
    pieces.push_back(std::string(static_cast<std::size_t>(at % 7), static_cast<char>('a' + at % 26)));
  std::vector<iovec> parts;
  for (std::string& piece : pieces) {
    parts.push_back(iovec{piece.data(), piece.size()});
    expected += piece;
  }
  REQUIRE(file->write_at(100, parts.data(), static_cast<int>(parts.size())));
  CHECK(file->read_at(100, expected.size() + 1).value() == expected);
}

TEST_CASE("errors name the call, the path and the system's reason") {
  const TemporaryDirectory directory;
  const auto failed = posix_file_system().open(directory / "none", FileSystem::Mode::open);
  CHECK(failed.error().message() == "open " + (directory / "none") + ": No such file or directory");
  CHECK(posix_file_system().make_directory(directory / "no/where").error() == Errc::not_found);
  REQUIRE(write_file_durably(posix_file_system(), directory / "file", "x"));
  CHECK(posix_file_system().make_directory(directory / "file").error() == Errc::io_error);
}

TEST_CASE("a full device is disk_full") {
  const auto full = posix_file_system().open("/dev/full", FileSystem::Mode::open);
  if (!full) return;  // not every sandbox has it
  CHECK(write(**full, 0, "x").error() == Errc::disk_full);
}

TEST_CASE("a write that the system cuts short is continued, and then its error is reported") {
  const TemporaryDirectory directory;
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    auto file = posix_file_system().open(directory / "f", FileSystem::Mode::create);
    if (!file) ::_exit(1);
    const std::string bytes(3000, 'x');
    const Result<void> written = write(**file, 0, bytes);
    if (written || !(written.error() == Errc::io_error)) ::_exit(2);
    ::_exit((*file)->size().value() == 1000 ? 0 : 3);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("files do not pass to the programs that the host starts") {
  const TemporaryDirectory directory;
  const auto file = posix_file_system().open(directory / "f", FileSystem::Mode::create).value();
  bool seen = false;
  for (int descriptor = 3; descriptor < 256; ++descriptor) {
    char target[512];
    const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
    const ssize_t size = ::readlink(link.c_str(), target, sizeof target);
    if (size < 0 || std::string_view(target, static_cast<std::size_t>(size)) != directory / "f") continue;
    seen = true;
    CHECK((::fcntl(descriptor, F_GETFD) & FD_CLOEXEC) != 0);
  }
  CHECK(seen);
}

TEST_CASE("the memory file system loses what was not synced, sector by sector and name by name") {
  MemoryFileSystem files;
  REQUIRE(files.make_directory("d"));
  REQUIRE(files.sync_directory("."));
  const auto made = [&] { return files.open("d/f", FileSystem::Mode::create).value(); };
  SUBCASE("a name without a directory sync") {
    REQUIRE(made()->sync());
    files.crash([] { return false; });
    CHECK_FALSE(files.exists("d/f").value());
  }
  SUBCASE("data without a sync") {
    const auto file = made();
    REQUIRE(files.sync_directory("d"));
    REQUIRE(write(*file, 0, std::string(600, 'a')));
    REQUIRE(file->sync());
    REQUIRE(write(*file, 0, std::string(1100, 'b')));
    CHECK(files.unsynced() == 3);
    int asked = 0;
    files.crash([&] { return ++asked == 2; });
    CHECK(files.contents("d/f") == std::string(512, 'a') + std::string(512, 'b'));
    CHECK(file->read_at(0, 1).error() == Errc::io_error);
    CHECK(file->sync().error() == Errc::io_error);
  }
  SUBCASE("a rename is done or not done") {
    files.set_contents("d/old", "old");
    const auto file = made();
    REQUIRE(write(*file, 0, "new"));
    REQUIRE(file->sync());
    REQUIRE(files.sync_directory("d"));
    REQUIRE(files.rename("d/f", "d/old"));
    CHECK(files.contents("d/old") == "new");
    files.crash([] { return false; });
    CHECK(files.contents("d/old") == "old");
    CHECK(files.contents("d/f") == "new");
  }
  SUBCASE("a removed file comes back") {
    files.set_contents("d/old", "old");
    REQUIRE(files.remove("d/old"));
    files.crash([] { return false; });
    CHECK(files.contents("d/old") == "old");
  }
  SUBCASE("after a failed sync readers see what is not on the medium") {
    const auto file = made();
    REQUIRE(files.sync_directory("d"));
    REQUIRE(write(*file, 0, "data"));
    files.forget_unsynced();
    CHECK(file->read_at(0, 4).value() == "data");
    REQUIRE(file->sync());
    files.crash([] { return true; });
    CHECK(files.contents("d/f").empty());
  }
  SUBCASE("it can be full") {
    files.set_capacity(1000);
    const auto file = made();
    REQUIRE(write(*file, 0, std::string(1000, 'x')));
    CHECK(write(*file, 1000, "x").error() == Errc::disk_full);
    REQUIRE(write(*file, 500, "x"));
  }
}

TEST_CASE("write_file_durably leaves the old contents or the new, whatever call fails or power is lost") {
  std::mt19937_64 random(5);
  for (std::uint64_t at = 0; at < 8; ++at) {
    for (int round = 0; round < 20; ++round) {
      CAPTURE(at);
      MemoryFileSystem memory;
      REQUIRE(memory.make_directory("d"));
      REQUIRE(memory.sync_directory("."));
      memory.set_contents("d/f", "old");
      FaultyFileSystem files(memory);
      files.set_fault({.at = at, .from_then_on = true, .partly = round % 2 == 0});
      const bool done = write_file_durably(files, "d/f", "new").has_value();
      CHECK(done == !files.struck());
      memory.crash([&] { return random() % 2 == 0; });
      const std::string found = memory.contents("d/f");
      if (done) {
        CHECK(found == "new");
      } else {
        CHECK((found == "old" || found == "new"));
      }
      REQUIRE(write_file_durably(memory, "d/f", "newer"));
    }
  }
}

TEST_CASE("a log on the real disk survives reopening, rolling and trimming, with segments prepared ahead") {
  const TemporaryDirectory directory;
  LogOptions options;
  options.directory = directory / "log";
  options.segment_bytes = 64 << 10;
  Model model;
  for (std::uint64_t round = 0; round < 3; ++round) {
    const auto log = must_open(posix_file_system(), options);
    check_same(*log, model);
    for (std::uint64_t step = 0; step < 40; ++step) {
      const std::vector<raft::Entry> what = entries(model.last() + 1, model.last() + 3, round + 1, 2000);
      REQUIRE(append(*log, what, vote(round + 1, 4)));
      model.put(what);
    }
    check_same(*log, model);
    REQUIRE(log->trim(Index{model.last() - 20}));
    CHECK(log->first_index().value > model.last() - 100);
    model.forget_below(log->first_index().value);
  }
  const auto log = must_open(posix_file_system(), options);
  CHECK(log->recovered().hard_state == vote(3, 4));
  check_same(*log, model);
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("log.identity");

TEST_CASE("an identity comes back as it was written, and its bytes are pinned") {
  MemoryFileSystem files;
  const Identity identity{ClusterId{0x0123456789abcdef, 0x1122334455667788}, NodeId{0xa1a2a3a4a5a6a7a8}, 3};
  CHECK(read_identity(files, "node").error() == Errc::not_found);
  REQUIRE(write_identity(files, "node", identity));
  CHECK(read_identity(files, "node").value() == identity);
  const std::string bytes = files.contents("node");
  CHECK(bytes.substr(0, 8) == "FLOTNODE");
  std::string hex;
  for (const char byte : bytes.substr(8)) hex += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  CHECK(hex ==
        "01000000"
        "594cb4b9"
        "efcdab8967452301"
        "8877665544332211"
        "a8a7a6a5a4a3a2a1"
        "0300000000000000");
}

TEST_CASE("every flipped byte and every length but the right one is damage") {
  MemoryFileSystem files;
  REQUIRE(write_identity(files, "node", {ClusterId{1, 2}, NodeId{3}, 4}));
  const std::string bytes = files.contents("node");
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    CAPTURE(at);
    std::string flipped = bytes;
    flipped[at] ^= 1;
    files.set_contents("node", flipped);
    CHECK(read_identity(files, "node").error() == Errc::damaged);
    files.set_contents("node", bytes.substr(0, at));
    CHECK(read_identity(files, "node").error() == Errc::damaged);
  }
  files.set_contents("node", bytes + '\0');
  CHECK(read_identity(files, "node").error() == Errc::damaged);
}

TEST_SUITE_END();
