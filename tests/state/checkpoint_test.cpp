// What a start finds after a crash: the database as of its checkpoint, whatever else reached the disk.
#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <random>

#include "state/support.hpp"

using namespace state_test;
using flotilla::state::Checkpoint;
using flotilla::state::read_checkpoint;
using flotilla::state::write_checkpoint;

namespace {

constexpr std::size_t page_bytes = 4096;

std::string read_file(const std::filesystem::path& path) {
  // In one piece: byte by byte it was most of this file's time under the sanitizers.
  std::string bytes(std::filesystem::file_size(path), '\0');
  REQUIRE(std::ifstream(path, std::ios::binary).read(bytes.data(), static_cast<std::streamsize>(bytes.size())));
  return bytes;
}

void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << bytes;
  REQUIRE(file.flush());
}

/// The log of this test: puts and removals over some tables, with values that need pages of their own now and then.
Entry entry_at(std::uint64_t index) {
  std::mt19937_64 random(index);
  const std::string table = "t" + std::to_string(random() % 4);
  const std::string key = "key" + std::to_string(random() % 300);
  const std::size_t size = random() % 10 == 0 ? random() % 11'000 : random() % 200;
  return command_entry(index, "put", {table, key, std::string(size, static_cast<char>('a' + index % 26))});
}

void apply_next(Store& store, std::uint64_t count) {
  const std::uint64_t first = store.applied().index.value + 1;
  std::vector<Entry> entries;
  for (std::uint64_t i = 0; i < count; ++i) entries.push_back(entry_at(first + i));
  REQUIRE(store.apply(entries));
}

std::uint64_t hash_of(Store& store) {
  return Store::content_hash(store.read().value()).value();
}

/// What a power loss may leave: each page, or each sector of it, as it was at any of these moments.
std::string crash_image(const std::vector<std::string>& moments, std::mt19937_64& random) {
  std::string image = moments.front();  // of the checkpoint: durable
  image.resize(moments.front().size() + random() % (moments.back().size() - moments.front().size() + 1), '\0');
  const auto take = [&](std::size_t offset, std::size_t bytes) {
    const std::string& from = moments[random() % moments.size()];
    if (offset >= image.size() || offset >= from.size()) return;
    std::memcpy(image.data() + offset, from.data() + offset,
                std::min({bytes, image.size() - offset, from.size() - offset}));
  };
  for (std::size_t offset = 0; offset < image.size(); offset += page_bytes) {
    if (random() % 10 != 0) {
      take(offset, page_bytes);
      continue;
    }
    for (std::size_t sector = 0; sector < page_bytes; sector += 512) take(offset + sector, 512);
  }
  return image;
}

}  // namespace

TEST_SUITE_BEGIN("state.checkpoint");

TEST_CASE("after a crash the database is as of its checkpoint, and the log brings back the rest") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "1"}));
  REQUIRE(rig.store().checkpoint());
  CHECK(rig.store().last_checkpoint().index == Index{1});
  REQUIRE(rig.command("put", {"t", "k", "2"}));
  rig.crash();
  rig.open();
  CHECK(rig.store().applied().index == Index{1});
  CHECK(rig.store().last_checkpoint().index == Index{1});
  CHECK(rig.read().table("t").get("k") == "1");
  REQUIRE(rig.command("put", {"t", "k", "2"}));
  CHECK(rig.read().table("t").get("k") == "2");
}

TEST_CASE("whatever pages of later transactions reached the disk, a start finds the checkpoint, also twice in a row") {
  std::mt19937_64 random(first_seed());
  for (int trial = 0; trial < 60; ++trial) {
    CAPTURE(trial);
    Rig rig;
    apply_next(rig.store(), 1 + random() % 200);
    REQUIRE(rig.store().checkpoint());
    std::uint64_t at_checkpoint = hash_of(rig.store());
    Index index = rig.store().applied().index;
    for (int losses = 0; losses < 3; ++losses) {
      CAPTURE(losses);
      std::vector<std::string> moments{read_file(rig.data_file())};
      for (std::uint64_t i = 1 + random() % 12; i > 0; --i) {
        apply_next(rig.store(), 1 + random() % 30);
        moments.push_back(read_file(rig.data_file()));
      }
      if (random() % 2 == 0) {
        REQUIRE(rig.store().checkpoint());
        index = rig.store().applied().index;
        at_checkpoint = hash_of(rig.store());
        moments = {read_file(rig.data_file())};
        apply_next(rig.store(), 1 + random() % 30);
        moments.push_back(read_file(rig.data_file()));
      }
      rig.crash();
      write_file(rig.data_file(), crash_image(moments, random));
      rig.open();
      REQUIRE(rig.store().applied().index == index);
      REQUIRE(hash_of(rig.store()) == at_checkpoint);
      if (random() % 2 == 0) {
        rig.crash();  // again, before anything else happens
        rig.open();
        REQUIRE(hash_of(rig.store()) == at_checkpoint);
      }
    }
    apply_next(rig.store(), 50);
    rig.reopen();
    Rig reference;
    for (std::uint64_t i = 1; i <= rig.store().applied().index.value; ++i) REQUIRE(reference.apply({entry_at(i)}));
    CHECK(hash_of(rig.store()) == hash_of(reference.store()));
  }
}

TEST_CASE("both of LMDB's places for the newest transaction may be lost") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "1"}));
  rig.close();
  std::string bytes = read_file(rig.data_file());
  std::memset(bytes.data(), 0xff, 200);
  std::memset(bytes.data() + page_bytes, 0, 200);
  write_file(rig.data_file(), bytes);
  rig.open();
  CHECK(rig.read().table("t").get("k") == "1");
}

TEST_CASE("the pages of a checkpoint stay until the next one is durable, and are used again after it") {
  Rig rig;
  const std::string value(2000, 'x');
  for (int i = 0; i < 200; ++i) REQUIRE(rig.command("put", {"t", std::to_string(i), value}));
  REQUIRE(rig.store().checkpoint());
  CHECK(rig.store().grown_bytes() == 0);
  const auto churn = [&] {
    for (int i = 0; i < 200; ++i) REQUIRE(rig.command("put", {"t", std::to_string(i % 200), value}));
  };
  churn();
  const std::uint64_t grown = rig.store().grown_bytes();
  CHECK(grown > 100 * page_bytes);
  for (int round = 0; round < 20; ++round) {
    REQUIRE(rig.store().checkpoint());
    CHECK(rig.store().grown_bytes() == 0);
    churn();
    // Also where the file does not grow.
    CHECK(rig.store().grown_bytes() > 100 * page_bytes);
  }
  CHECK(rig.store().file_bytes() < 10 * grown);
}

TEST_CASE("a checkpoint that is dropped changes nothing") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "1"}));
  REQUIRE(rig.store().checkpoint());
  REQUIRE(rig.command("put", {"t", "k", "2"}));
  REQUIRE(rig.store().begin_checkpoint());
  CHECK(rig.store().last_checkpoint().index == Index{1});
  rig.crash();
  rig.open();
  CHECK(rig.read().table("t").get("k") == "1");
}

TEST_CASE("apply goes on between the two halves of a checkpoint, which is of the moment it began") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "1"}));
  auto begun = rig.store().begin_checkpoint().value();
  for (int i = 2; i < 50; ++i) REQUIRE(rig.command("put", {"t", "k", std::to_string(i)}));
  REQUIRE(rig.store().finish_checkpoint(*begun, [] { return true; }));
  begun.reset();
  CHECK(rig.store().last_checkpoint().index == Index{1});
  for (int i = 50; i < 99; ++i) REQUIRE(rig.command("put", {"t", "k", std::to_string(i)}));
  rig.crash();
  rig.open();
  CHECK(rig.read().table("t").get("k") == "1");
}

TEST_CASE("a database that does not stand where its checkpoint says is refused") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "1"}));
  rig.close();
  Checkpoint checkpoint = read_checkpoint(rig.options().directory).value();
  SUBCASE("index") {
    checkpoint.index = Index{2};
  }
  SUBCASE("term") {
    checkpoint.term = Term{7};
  }
  REQUIRE(write_checkpoint(rig.options().directory, checkpoint, false));
  const auto refused = Store::open(rig.options(), test_commands());
  REQUIRE_FALSE(refused);
  CHECK(refused.error() == Errc::damaged);
}

TEST_CASE("a database without its checkpoint, or with a damaged one, is refused and left alone") {
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "1"}));
  rig.close();
  const std::filesystem::path path = rig.options().directory / "checkpoint";
  const std::string good = read_file(path);
  for (std::size_t i = 0; i < good.size(); ++i) {
    CAPTURE(i);
    std::string flipped = good;
    flipped[i] = static_cast<char>(flipped[i] ^ 1);
    write_file(path, flipped);
    CHECK(read_checkpoint(rig.options().directory).error() == Errc::damaged);
  }
  for (std::size_t length = 0; length < good.size(); length += 7) {
    write_file(path, good.substr(0, length));
    CHECK(read_checkpoint(rig.options().directory).error() == Errc::damaged);
  }
  write_file(path, good + "x");
  CHECK(read_checkpoint(rig.options().directory).error() == Errc::damaged);
  CHECK(Store::open(rig.options(), test_commands()).error() == Errc::damaged);
  std::filesystem::remove(path);
  CHECK(read_checkpoint(rig.options().directory).error() == Errc::not_found);
  CHECK(Store::open(rig.options(), test_commands()).error() == Errc::damaged);
  write_file(path, good);
  rig.open();
  CHECK(rig.read().table("t").get("k") == "1");
}

TEST_CASE("a checkpoint or data file of another database is damage, not the end of the process (E17)") {
  Rig large;
  for (int i = 0; i < 400; ++i) REQUIRE(large.command("put", {"t", std::to_string(i), std::string(500, 'x')}));
  large.close();
  Rig small;
  REQUIRE(small.command("put", {"t", "k", "1"}));
  small.close();
  const auto other_checkpoint = [](Rig& to, Rig& from) {
    std::filesystem::copy(from.options().directory / "checkpoint", to.options().directory / "checkpoint",
                          std::filesystem::copy_options::overwrite_existing);
  };
  SUBCASE("of a larger one: its pages are beyond the end of the file") {
    other_checkpoint(small, large);
  }
  SUBCASE("a larger file with the pages of zeros") {
    std::string zeros = read_file(large.data_file());
    std::fill(zeros.begin() + 2 * page_bytes, zeros.end(), '\0');
    write_file(large.data_file(), zeros);
  }
  unsigned refused = 0;
  for (Rig* const rig : {&large, &small}) {
    const auto opened = Store::open(rig->options(), test_commands());
    if (!opened && opened.error() == Errc::damaged) ++refused;
  }
  CHECK(refused == 1);
}

TEST_CASE("a data file that is gone or cut short is damage, not the end of the process") {
  Rig rig;
  for (int i = 0; i < 200; ++i) REQUIRE(rig.command("put", {"t", std::to_string(i), std::string(100, 'x')}));
  rig.close();
  const std::string good = read_file(rig.data_file());
  for (const std::size_t length : {std::size_t{0}, page_bytes, 2 * page_bytes}) {
    CAPTURE(length);
    write_file(rig.data_file(), good.substr(0, length));
    CHECK(Store::open(rig.options(), test_commands()).error() == Errc::damaged);
  }
  std::filesystem::remove(rig.data_file());
  CHECK(Store::open(rig.options(), test_commands()).error() == Errc::damaged);
  CHECK_FALSE(std::filesystem::exists(rig.data_file()));
  write_file(rig.data_file(), good);
  rig.open();
  CHECK(rig.read().table("t").size() == 200);
}

TEST_CASE("what was only made is unused, all else is not") {
  TempDir dir;
  const StoreOptions options = options_in(dir.path() / "state");
  CHECK(Store::unused(options.directory).value());
  std::filesystem::create_directory(options.directory);
  CHECK(Store::unused(options.directory).value());
  write_file(options.directory / "data.mdb", std::string(2 * page_bytes, 'x'));
  CHECK(Store::unused(options.directory).value());
  write_file(options.directory / "data.mdb", std::string(100 * page_bytes, 'x'));
  CHECK_FALSE(Store::unused(options.directory).value());
  std::filesystem::remove(options.directory / "data.mdb");
  auto store = Store::open(options, test_commands()).value();
  CHECK(Store::unused(options.directory).value());
  apply_next(*store, 2);
  REQUIRE(store->checkpoint());
  store.reset();
  CHECK_FALSE(Store::unused(options.directory).value());
  write_file(options.directory / "checkpoint", "x");
  CHECK(Store::unused(options.directory).error() == Errc::damaged);
}

TEST_CASE("golden: the checkpoint's bytes") {
  TempDir dir;
  Rig rig;
  REQUIRE(rig.command("put", {"t", "k", "1"}));
  rig.close();
  Checkpoint checkpoint = read_checkpoint(rig.options().directory).value();
  checkpoint.index = Index{0x0102};
  checkpoint.term = Term{3};
  checkpoint.installed = true;
  REQUIRE(write_checkpoint(dir.path(), checkpoint, true));
  const std::string bytes = read_file(dir.path() / "checkpoint");
  CHECK(to_hex(bytes.substr(0, 29)) ==
        "4654435001000000"
        "0201000000000000"
        "0300000000000000"
        "01"
        "98000000");
  CHECK(bytes.substr(29, 152) == checkpoint.meta.bytes);
  CHECK(bytes.size() == 29 + 152 + 4);
  const Checkpoint again = read_checkpoint(dir.path()).value();
  CHECK(again.index == checkpoint.index);
  CHECK(again.term == checkpoint.term);
  CHECK(again.installed);
  CHECK(again.meta == checkpoint.meta);
}

TEST_SUITE_END();
