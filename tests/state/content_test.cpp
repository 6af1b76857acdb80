// A database read page by page, without LMDB: LMDB's own walk is the oracle.
#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <random>

#include "state/content.hpp"
#include "state/support.hpp"

using namespace state_test;
using flotilla::state::Content;
using flotilla::state::MetaPage;
using flotilla::state::read_checkpoint;
using flotilla::state::read_content;

namespace {

constexpr std::size_t page_bytes = 4096;

/// Draws what it does from its first argument: tables of both kinds, small and large values, few and many duplicates,
/// removals, and emptied tables.
Commands working_commands() {
  Commands commands;
  commands.add("work", [](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    std::mt19937_64 random(std::stoull(std::string(args[0])));
    const bool apart = args.size() > 1;
    const auto text = [&](std::size_t size) { return std::string(size, static_cast<char>(random() % 256)); };
    for (int i = 0; i < 40; ++i) {
      const std::string key = std::to_string(random() % 400) + std::string(random() % 20 == 0 ? 400 : 0, 'k');
      auto plain = txn.table("plain" + std::to_string(random() % 3));
      auto sorted = txn.duplicates_table("sorted" + std::to_string(random() % 2));
      switch (random() % 8) {
        case 0:
        case 1: static_cast<void>(plain.put(key, text(random() % 200))); break;
        case 2:
          // In the place of a longer value LMDB keeps pages that nothing is in.
          static_cast<void>(apart ? plain.put("large" + key, text(9000)) : plain.put(key, text(random() % 20'000)));
          break;
        case 3: static_cast<void>(plain.remove(key)); break;
        case 4:
        case 5: static_cast<void>(sorted.put("few" + key, std::to_string(random() % 50))); break;
        case 6: static_cast<void>(sorted.put("many", std::to_string(random()) + text(random() % 300))); break;
        default:
          if (random() % 50 == 0) {
            static_cast<void>(sorted.clear());
          } else {
            static_cast<void>(sorted.remove("few" + key));
          }
      }
    }
    return Bytes();
  });
  return commands;
}

/// A database after some work, taken as of a checkpoint, with more work after it in the file.
struct Worked {
  TempDir dir;
  std::filesystem::path file = dir.path() / "data.mdb";
  std::unique_ptr<Store> store = Store::open(options_in(dir.path()), working_commands()).value();

  explicit Worked(std::uint64_t seed, int checkpoints = 6, bool apart = false) {
    std::uint64_t index = 0;
    for (int round = 0; round < checkpoints; ++round) {
      for (int i = 0; i < 10; ++i) {
        ++index;
        const std::string drawn = std::to_string(seed * 1000 + index);
        std::vector<std::string_view> args{drawn};
        if (apart) args.emplace_back("apart");
        REQUIRE(store->apply(std::vector{command_entry(index, "work", args)}));
      }
      REQUIRE(store->checkpoint());
    }
  }
  MetaPage meta() const { return read_checkpoint(dir.path()).value().meta; }
  Result<Content> content() const { return read_content(file, meta()); }
  std::uint64_t hash() const { return Store::content_hash(store->read().value()).value(); }
};

void flip(const std::filesystem::path& path, std::uint64_t offset, unsigned bit) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(offset));
  const char byte = static_cast<char>(file.get() ^ (1 << bit));
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(byte);
  REQUIRE(file.flush());
}

}  // namespace

TEST_SUITE_BEGIN("state.content");

TEST_CASE("page by page it is what LMDB says, whatever tables, values and removals made it") {
  for (std::uint64_t seed = first_seed(); seed < first_seed() + 10; ++seed) {
    CAPTURE(seed);
    const Worked worked(seed);
    const auto content = worked.content();
    REQUIRE_MESSAGE(content, content.error().message());
    CHECK(content->hash == worked.hash());
    CHECK(content->applied.index == Index{60});
    CHECK(content->txn_id == worked.meta().txn_id());
    const auto txn = worked.store->read().value();
    REQUIRE(content->tables.size() == txn.tables().size());
    for (const auto& table : content->tables) {
      CHECK(table.pairs == txn.table(table.name).size());
      CHECK(table.kind == txn.table(table.name).kind());
    }
    CHECK(content->pages->used + content->pages->free <= worked.meta().last_page() + 1);
    CHECK(content->pages->free > 0);
  }
}

TEST_CASE("it is as of the checkpoint, whatever was committed since") {
  const Worked worked(1);
  const auto before = worked.hash();
  const auto meta = worked.meta();
  for (std::uint64_t index = 61; index <= 80; ++index) {
    REQUIRE(worked.store->apply(std::vector{command_entry(index, "work", {std::to_string(index)})}));
  }
  CHECK(worked.hash() != before);
  const auto content = read_content(worked.file, meta);
  REQUIRE(content);
  CHECK(content->hash == before);
  CHECK(content->applied.index == Index{60});
}

TEST_CASE("a new database is read, and has no tables") {
  const Worked worked(1, 0);
  const auto content = worked.content();
  REQUIRE(content);
  CHECK(content->tables.empty());
  CHECK(content->hash == worked.hash());
}

TEST_CASE("a flipped bit in the number of any page in use is found, or changes the hash") {
  const Worked worked(2, 6, true);
  const auto meta = worked.meta();
  const auto whole = worked.content();
  REQUIRE(whole);
  std::uint64_t noticed = 0;
  for (std::uint64_t page = 2; page <= meta.last_page(); ++page) {
    flip(worked.file, page * page_bytes, 0);
    const auto content = read_content(worked.file, meta);
    if (!content) CHECK(content.error() == Errc::damaged);
    if (!content || content->hash != whole->hash) ++noticed;
    flip(worked.file, page * page_bytes, 0);
  }
  CHECK(noticed == whole->pages->used - 2);
}

TEST_CASE("whatever bit is flipped, it is read to the end or refused by its page") {
  const Worked worked(3, 2);
  const auto meta = worked.meta();
  std::mt19937_64 random(first_seed());
  for (int i = 0; i < 3000; ++i) {
    const std::uint64_t page = 2 + random() % (meta.last_page() - 1);
    // Half of them where pages and nodes say what they are.
    const std::uint64_t offset = page * page_bytes + random() % (i % 2 == 0 ? 64 : page_bytes);
    const unsigned bit = random() % 8;
    CAPTURE(offset);
    CAPTURE(bit);
    flip(worked.file, offset, bit);
    const auto content = read_content(worked.file, meta);
    if (!content) CHECK((content.error() == Errc::damaged || content.error() == Errc::version_unsupported));
    flip(worked.file, offset, bit);
  }
  CHECK(worked.content());
}

TEST_CASE("a file that ends before a page in use is damaged") {
  const Worked worked(4, 2);
  std::filesystem::resize_file(worked.file, 5 * page_bytes + 100);
  const auto content = worked.content();
  REQUIRE_FALSE(content);
  CHECK(content.error() == Errc::damaged);
}

TEST_SUITE_END();
