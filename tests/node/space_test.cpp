// Real file systems that are full: two small tmpfs, and ext4 on a loop device. They are mounted in a mount namespace of
// this process's own, so nothing stays behind and nobody else sees them. Where the system allows no mounts, the test is
// skipped (exit code 77); the loop device needs root.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <map>

#include "db_fixture.hpp"

using namespace flotilla;
using namespace flotilla::test;

namespace {

using namespace std::chrono_literals;

constexpr int skipped = 77;
constexpr std::size_t value_bytes = 8000;

bool write_file(const char* path, const std::string& text) {
  std::ofstream out(path);
  return static_cast<bool>(out << text << std::flush);
}

/// False: the system does not let us mount anything.
bool isolate() {
  const unsigned user = ::getuid();
  const unsigned group = ::getgid();
  if (user == 0) {
    if (::unshare(CLONE_NEWNS) != 0) return false;
  } else {
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    write_file("/proc/self/setgroups", "deny");
    if (!write_file("/proc/self/uid_map", "0 " + std::to_string(user) + " 1")) return false;
    if (!write_file("/proc/self/gid_map", "0 " + std::to_string(group) + " 1")) return false;
  }
  return ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

class Mount {
 public:
  /// As mount(8) is told to.
  Mount(const std::string& what, std::filesystem::path where) : where_(std::move(where)) {
    std::filesystem::create_directories(where_);
    mounted_ = std::system(("mount " + what + " " + where_.string()).c_str()) == 0;
  }
  ~Mount() {
    if (mounted_) ::umount2(where_.c_str(), MNT_DETACH);
  }
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;
  bool mounted() const { return mounted_; }

 private:
  std::filesystem::path where_;
  bool mounted_ = false;
};

/// Takes all space of a file system, to the last block.
class Ballast {
 public:
  explicit Ballast(std::filesystem::path directory) : path_(std::move(directory) / "ballast") {}
  ~Ballast() { release(); }
  void fill() const {
    const int file = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    REQUIRE(file >= 0);
    const std::string zeros(1u << 20, '\0');
    for (std::size_t bytes = zeros.size(); bytes >= 512;) {
      if (::write(file, zeros.data(), bytes) <= 0) bytes /= 2;
    }
    ::close(file);
  }
  void release() const {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }

 private:
  std::filesystem::path path_;
};

/// A database whose log or state is short of space, and what it has said of each key.
class Subject {
 public:
  explicit Subject(const std::filesystem::path& data_dir) : options_(test_options(data_dir)) {
    options_.segment_bytes = 256u << 10;
    options_.disk_reserve_bytes = 0;
    open();
  }

  void open() { db_.emplace(DB::open(options_, test_commands()).value()); }
  void close() { db_.reset(); }
  DB& db() { return *db_; }

  /// How a put of the next key ended.
  Result<Bytes> put(std::chrono::milliseconds timeout = 10s) {
    const std::string key = std::to_string(last_ + 1);
    auto done = db_->command("put", {key, value_of(key)}, CallOptions{.timeout = timeout}).get();
    const Errc code = done ? Errc{} : static_cast<Errc>(done.error().code().value());
    puts_[key] = code;
    ++last_;
    return done;
  }
  /// Puts until one does not get through.
  void put_until_full() {
    for (int i = 0; i < 20'000; ++i) {
      if (auto done = put(300ms); !done) {
        const Error& error = done.error();
        INFO(error.message());
        CHECK((error == Errc::disk_full || error == Errc::outcome_unknown || error == Errc::timeout));
        return;
      }
    }
    FAIL("the disk does not fill");
  }

  /// It waits, refuses, says why, and still reads.
  void check_refuses() {
    eventually([&] { return db_->status().refusing.has_value(); });
    CHECK_FALSE(db_->status().fault);
    CHECK(*db_->status().refusing == Errc::disk_full);
    const auto refused = put();
    REQUIRE_FALSE(refused);
    CHECK(refused.error() == Errc::disk_full);
    CHECK(refused.error().message().find("it goes on by itself") != std::string::npos);
    CHECK(get(*db_, "1") == value_of("1"));
  }
  /// It goes on by itself.
  void check_resumes() {
    eventually([&] { return !db_->status().refusing.has_value(); });
    CHECK_FALSE(db_->status().fault);
    for (int i = 0; i < 100; ++i) REQUIRE(put());
  }
  /// What was acknowledged is there, what was refused is not.
  void check_contents() {
    for (const auto& [key, code] : puts_) {
      const std::string found = get(*db_, key);
      if (code == Errc{}) CHECK(found == value_of(key));
      if (code == Errc::disk_full || code == Errc::timeout) CHECK(found == "(none)");
      if (code == Errc::outcome_unknown) CHECK((found == "(none)" || found == value_of(key)));
    }
  }

 private:
  static std::string value_of(const std::string& key) { return key + std::string(value_bytes, 'x'); }

  Options options_;
  std::optional<DB> db_;
  std::map<std::string, Errc> puts_;
  std::uint64_t last_ = 0;
};

/// Twice full, and space twice; then a restart.
void run(Subject& subject, const Ballast& ballast) {
  for (int i = 0; i < 50; ++i) REQUIRE(subject.put());
  for (int round = 0; round < 2; ++round) {
    CAPTURE(round);
    ballast.fill();
    subject.put_until_full();
    subject.check_refuses();
    if (round == 0) {  // an end in order, and a start, while it waits
      subject.close();
      ballast.release();
      subject.open();
      subject.check_contents();
      ballast.fill();
      subject.put_until_full();
      subject.check_refuses();
    }
    ballast.release();
    subject.check_resumes();
    subject.check_contents();
  }
  subject.close();
  subject.open();
  subject.check_contents();
}

}  // namespace

TEST_SUITE_BEGIN("node.space");

TEST_CASE("a full disk under the log: commands wait or are refused, reads go on, and space is all it takes (L52)") {
  const TempDir dir;
  const Mount log("-t tmpfs -o size=16m none", dir / "data" / "log");
  REQUIRE(log.mounted());
  Subject subject(dir / "data");
  run(subject, Ballast(dir / "data" / "log"));
}

TEST_CASE("a full disk under the database: the same (L52)") {
  const TempDir dir;
  const Mount data("-t tmpfs -o size=64m none", dir / "data");
  REQUIRE(data.mounted());
  const Mount log("-t tmpfs -o size=64m none", dir / "data" / "log");
  REQUIRE(log.mounted());
  Subject subject(dir / "data");
  run(subject, Ballast(dir / "data"));
}

TEST_CASE("a full ext4: the same (L52)") {
  const TempDir dir;
  const auto image = dir / "image";
  const std::string make =
      "truncate -s 64m " + image.string() + " && PATH=$PATH:/usr/sbin mkfs.ext4 -q " + image.string();
  REQUIRE(std::system(make.c_str()) == 0);
  const Mount disk("-o loop " + image.string(), dir / "disk");
  if (!disk.mounted()) {
    MESSAGE("skipped: no loop device can be mounted here");
    return;
  }
  Subject subject(dir / "disk" / "data");
  run(subject, Ballast(dir / "disk"));
}

TEST_CASE("a process that is killed on a full disk finds all of it there again, with space or without") {
  const TempDir dir;
  const Mount disk("-t tmpfs -o size=32m none", dir / "disk");
  REQUIRE(disk.mounted());
  const Ballast ballast(dir / "disk");
  int pipe[2];
  REQUIRE(::pipe(pipe) == 0);
  const pid_t child = ::fork();
  if (child != 0) ::close(pipe[1]);
  if (child == 0) {
    Subject subject(dir / "disk" / "data");
    for (int i = 0; i < 50; ++i) static_cast<void>(subject.put());
    ballast.fill();
    subject.put_until_full();
    static_cast<void>(::write(pipe[1], "x", 1));
    ::pause();
  }
  char told = 0;
  REQUIRE(::read(pipe[0], &told, 1) == 1);
  REQUIRE(::kill(child, SIGKILL) == 0);
  ::waitpid(child, nullptr, 0);
  Options options = test_options(dir / "disk" / "data");
  options.segment_bytes = 256u << 10;
  auto full = DB::open(options, test_commands());
  if (!full) {
    INFO(full.error().message());
    CHECK(full.error() == Errc::disk_full);
    ballast.release();
    full = DB::open(options, test_commands());
  }
  REQUIRE(full);
  for (int key = 1; key <= 50; ++key) CHECK(get(*full, std::to_string(key)).size() > value_bytes);
  ballast.release();
  eventually([&] { return !full->status().refusing; });
  REQUIRE(full->command("put", {"after", "1"}).get());
}

TEST_CASE("a leader on a full disk hands over, and follows again once there is space (G21)") {
  std::size_t opened = 0;
  std::unique_ptr<Mount> log;
  Cluster cluster(3, [&](Options& options) {
    options.segment_bytes = 256u << 10;
    options.disk_reserve_bytes = 0;
    if (opened++ == 0) log = std::make_unique<Mount>("-t tmpfs -o size=16m none", options.data_dir / "log");
  });
  eventually([&] { return cluster.leader() == 0 || cluster[0].transfer_leadership(cluster.id(0)).get(); });
  REQUIRE(log->mounted());
  const Ballast ballast(cluster.path() / "0" / "log");
  ballast.fill();
  const std::string value(value_bytes, 'x');
  std::vector<std::string> acknowledged;
  const auto put = [&](std::size_t through) {
    const std::string key = std::to_string(acknowledged.size());
    if (cluster[through].command("put", {key, value}, CallOptions{.timeout = 2s}).get()) acknowledged.push_back(key);
  };
  eventually([&] {
    put(1);
    return cluster[0].status().refusing.has_value();
  });
  eventually([&] {
    put(1);
    return cluster.leader() != 0;
  });
  const std::size_t before = acknowledged.size();
  eventually([&] {
    put(1);
    return acknowledged.size() >= before + 50;
  });
  CHECK_FALSE(cluster[0].status().fault);
  ballast.release();
  eventually([&] { return cluster[0].status().applied_index >= cluster[1].status().commit_index; });
  eventually([&] { return !cluster[0].status().refusing; });
  for (const std::string& key : acknowledged) CHECK(get(cluster[0], key) == value);
  cluster.stop(0);
  log.reset();
}

TEST_SUITE_END();

int main(int count, char** values) {
  if (!isolate()) {
    std::puts("skipped: no mount namespace can be made here");
    return skipped;
  }
  doctest::Context context(count, values);
  return context.run();
}
