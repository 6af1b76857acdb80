#include "lmdb_file.hpp"

#include <cstring>
#include <optional>
#include <stdexcept>
#include <vector>

#include <fmt/format.h>
#include <xxhash.h>

namespace crash {
namespace {

// LMDB 0.9, 64 bits (mdb.c: MDB_page, MDB_node, MDB_db, MDB_meta).
constexpr std::size_t header_bytes = 16;
constexpr std::size_t node_bytes = 8;
constexpr std::size_t table_bytes = 48;
constexpr std::uint16_t branch = 0x01;
constexpr std::uint16_t leaf = 0x02;
constexpr std::uint16_t overflow = 0x04;
constexpr std::uint16_t sub_page = 0x40;
constexpr std::uint16_t big_data = 0x01;
constexpr std::uint16_t sub_table = 0x02;
constexpr std::uint16_t duplicates = 0x04;
constexpr std::uint64_t no_page = ~std::uint64_t{0};

[[noreturn]] void wrong(const std::string& what) {
  throw std::runtime_error(what);
}

template <class T>
T at(std::string_view bytes, std::size_t offset) {
  T value;
  if (offset + sizeof value > bytes.size()) wrong("a field beyond the end of its page");
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

struct TableRecord {
  std::uint16_t depth = 0;
  std::uint64_t entries = 0;
  std::uint64_t root = no_page;
};
TableRecord table_at(std::string_view bytes, std::size_t offset) {
  return {at<std::uint16_t>(bytes, offset + 6), at<std::uint64_t>(bytes, offset + 32),
          at<std::uint64_t>(bytes, offset + 40)};
}

class Walker {
 public:
  explicit Walker(std::string_view file) : file_(file) {}

  Tables run() {
    page_bytes_ = at<std::uint32_t>(file_, header_bytes + 24);
    if (page_bytes_ < 512 || page_bytes_ > 65'536) wrong("no page size");
    std::string_view meta;
    for (std::uint64_t number : {0u, 1u}) {
      if ((number + 1) * page_bytes_ > file_.size()) wrong("a meta page is missing");
      const std::string_view page = file_.substr(number * page_bytes_, page_bytes_);
      if (at<std::uint32_t>(page, header_bytes) != 0xbeefc0de) wrong(fmt::format("meta page {} is none", number));
      if (meta.empty() || at<std::uint64_t>(page, txn_at) > at<std::uint64_t>(meta, txn_at)) meta = page;
    }
    tables_.txn_id = at<std::uint64_t>(meta, txn_at);
    last_page_ = at<std::uint64_t>(meta, txn_at - 8);
    used_.assign(last_page_ + 1, false);
    use(0);
    use(1);
    const TableRecord free = table_at(meta, header_bytes + 24);
    const TableRecord main = table_at(meta, header_bytes + 24 + table_bytes);
    std::vector<std::uint64_t> free_pages;
    walk(free, [&](std::string_view, std::string_view list, bool) {
      const auto count = at<std::uint64_t>(list, 0);
      for (std::uint64_t i = 1; i <= count; ++i) free_pages.push_back(at<std::uint64_t>(list, 8 * i));
    });
    walk(main, [&](std::string_view name, std::string_view record, bool is_table) {
      if (!is_table) wrong("a row among the tables");
      walk_named(std::string(name), table_at(record, 0));
    });
    for (const std::uint64_t page : free_pages) use(page);
    for (std::uint64_t page = 0; page <= last_page_; ++page) {
      if (!used_[page]) wrong(fmt::format("page {} of {} is neither used nor free", page, last_page_));
    }
    tables_.pages = last_page_ + 1;
    return std::move(tables_);
  }

 private:
  static constexpr std::size_t txn_at = header_bytes + 24 + 2 * table_bytes + 8;

  void use(std::uint64_t page) {
    if (page > last_page_) wrong(fmt::format("page {} is beyond the last, {}", page, last_page_));
    if (used_[page]) wrong(fmt::format("page {} is used twice, or used and free", page));
    used_[page] = true;
  }

  std::string_view page(std::uint64_t number, std::uint64_t count = 1) {
    for (std::uint64_t i = 0; i < count; ++i) use(number + i);
    if ((number + count) * page_bytes_ > file_.size()) wrong(fmt::format("the file ends before page {}", number));
    const std::string_view bytes = file_.substr(number * page_bytes_, count * page_bytes_);
    if (at<std::uint64_t>(bytes, 0) != number) wrong(fmt::format("page {} says another number", number));
    return bytes;
  }

  void walk_named(const std::string& name, const TableRecord& record) {
    std::uint64_t& sum = tables_.sums[name];
    std::uint64_t& rows = tables_.rows[name];
    walk(record, [&](std::string_view key, std::string_view value, bool) {
      sum += row_hash(name, key, value);
      ++rows;
      if (name == "__flotilla") tables_.reserved.emplace(key, value);
    });
    if (rows != record.entries) wrong(fmt::format("table {} has {} rows and counts {}", name, rows, record.entries));
  }

  template <class Visit>
  void walk(const TableRecord& record, Visit visit) {
    if (record.root != no_page) walk_page(record.root, record.depth, visit);
  }

  template <class Visit>
  void walk_page(std::uint64_t number, unsigned depth, Visit& visit) {
    if (depth == 0) wrong(fmt::format("page {} is deeper than its tree", number));
    const std::string_view bytes = page(number);
    const auto flags = at<std::uint16_t>(bytes, 10);
    if ((flags & (depth > 1 ? branch : leaf)) == 0) wrong(fmt::format("page {} has flags {:x}", number, flags));
    walk_nodes(bytes, depth > 1, depth, visit);
  }

  template <class Visit>
  void walk_nodes(std::string_view bytes, bool is_branch, unsigned depth, Visit& visit) {
    const auto lower = at<std::uint16_t>(bytes, 12);
    if (lower < header_bytes || lower > bytes.size()) wrong("a page's lower bound");
    const std::size_t count = (lower - header_bytes) / 2;
    for (std::size_t i = 0; i < count; ++i) {
      const auto offset = at<std::uint16_t>(bytes, header_bytes + 2 * i);
      const auto low = at<std::uint16_t>(bytes, offset);
      const auto high = at<std::uint16_t>(bytes, offset + 2);
      const auto flags = at<std::uint16_t>(bytes, offset + 4);
      const auto key_bytes = at<std::uint16_t>(bytes, offset + 6);
      if (is_branch) {
        const std::uint64_t child = low | std::uint64_t{high} << 16 | std::uint64_t{flags} << 32;
        walk_page(child, depth - 1, visit);
        continue;
      }
      const std::size_t data_bytes = low | std::size_t{high} << 16;
      if (offset + node_bytes + key_bytes > bytes.size()) wrong("a key beyond its page");
      const std::string_view key = bytes.substr(offset + node_bytes, key_bytes);
      const std::size_t data_at = offset + node_bytes + key_bytes;
      if ((flags & big_data) != 0) {
        const auto first = at<std::uint64_t>(bytes, data_at);
        visit(key, big_value(first, data_bytes), false);
        continue;
      }
      if (data_at + data_bytes > bytes.size()) wrong("a value beyond its page");
      const std::string_view data = bytes.substr(data_at, data_bytes);
      if ((flags & duplicates) == 0) {
        visit(key, data, (flags & sub_table) != 0);
      } else {
        walk_duplicates(key, data, (flags & sub_table) != 0, visit);
      }
    }
  }

  /// The values of one key: the keys of a tree, or of a page within the page.
  template <class Visit>
  void walk_duplicates(std::string_view key, std::string_view data, bool is_table, Visit& visit) {
    std::function<void(std::string_view, std::string_view, bool)> each = [&](std::string_view value, std::string_view,
                                                                             bool) { visit(key, value, false); };
    if (is_table) {
      const TableRecord record = table_at(data, 0);
      if (record.root != no_page) walk_page(record.root, record.depth, each);
    } else {
      if ((at<std::uint16_t>(data, 10) & sub_page) == 0) wrong("a page within a page is none");
      walk_nodes(data, false, 1, each);
    }
  }

  /// May have more pages than it needs: LMDB writes a shorter value over a longer one.
  std::string_view big_value(std::uint64_t first, std::size_t data_bytes) {
    if (first > last_page_ || (first + 1) * page_bytes_ > file_.size()) wrong(fmt::format("no page {}", first));
    const std::string_view head = file_.substr(first * page_bytes_, header_bytes);
    const std::uint64_t count = at<std::uint32_t>(head, 12);
    if ((at<std::uint16_t>(head, 10) & overflow) == 0 || count * page_bytes_ < header_bytes + data_bytes) {
      wrong(fmt::format("page {} begins no value of {} bytes", first, data_bytes));
    }
    return page(first, count).substr(header_bytes, data_bytes);
  }

  std::string_view file_;
  std::uint64_t page_bytes_ = 0;
  std::uint64_t last_page_ = 0;
  std::vector<bool> used_;
  Tables tables_;
};

}  // namespace

std::uint64_t row_hash(std::string_view table, std::string_view key, std::string_view value) {
  const std::uint64_t head = XXH3_64bits_withSeed(table.data(), table.size(), key.size());
  const std::uint64_t middle = XXH3_64bits_withSeed(key.data(), key.size(), head);
  return XXH3_64bits_withSeed(value.data(), value.size(), middle);
}

Tables read_tables(std::string_view bytes) {
  return Walker(bytes).run();
}

}  // namespace crash
