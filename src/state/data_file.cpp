#include "state/data_file.hpp"

#include <array>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/codec.hpp"

namespace flotilla::state {
namespace {

// Offsets in a meta page: the page's header, then LMDB's MDB_meta on a 64-bit machine. The first of its two records of
// tables (free pages, then named tables) carries the page size where others have padding.
constexpr std::size_t flags_at = 10;
constexpr std::size_t meta_at = 16;
constexpr std::size_t magic_at = meta_at;
constexpr std::size_t version_at = meta_at + 4;
constexpr std::size_t tables_at = meta_at + 24;
constexpr std::size_t table_bytes = 48;
constexpr std::size_t depth_in_table = 6;
constexpr std::size_t root_in_table = 40;
constexpr std::size_t last_page_at = tables_at + 2 * table_bytes;
constexpr std::size_t txn_id_at = last_page_at + 8;
constexpr std::size_t meta_page_bytes = txn_id_at + 8;

constexpr std::uint16_t branch_flag = 0x01;
constexpr std::uint16_t leaf_flag = 0x02;
constexpr std::uint16_t meta_flag = 0x08;
constexpr std::uint32_t magic = 0xbeefc0de;
constexpr std::uint32_t data_version = 1;
constexpr std::uint32_t page_bytes_min = 512;
constexpr std::uint32_t page_bytes_max = 65'536;
constexpr std::uint64_t no_page = ~std::uint64_t{0};

template <class T>
T at(std::string_view page, std::size_t offset) {
  return get_fixed<T>(page.data() + offset);
}

const char* wrong_in_head(std::string_view page) {
  if (page.size() < meta_page_bytes) return "it is too short";
  if ((at<std::uint16_t>(page, flags_at) & meta_flag) == 0) return "a meta page is none";
  if (at<std::uint32_t>(page, magic_at) != magic) return "a meta page has another magic";
  if (at<std::uint32_t>(page, version_at) != data_version) return "a meta page has another version";
  const auto page_bytes = at<std::uint32_t>(page, tables_at);
  const bool power_of_two = (page_bytes & (page_bytes - 1)) == 0;
  if (page_bytes < page_bytes_min || page_bytes > page_bytes_max || !power_of_two) return "its page size";
  return nullptr;
}

const char* wrong_in_meta(std::string_view page, std::uint32_t page_bytes, std::uint64_t pages) {
  if (const char* wrong = wrong_in_head(page)) return wrong;
  if (at<std::uint32_t>(page, tables_at) != page_bytes) return "the meta pages disagree on the page size";
  const auto last_page = at<std::uint64_t>(page, last_page_at);
  if (last_page < 1 || last_page >= pages) return "the file ends before its last page";
  for (std::size_t table = 0; table < 2; ++table) {
    const std::size_t record = tables_at + table * table_bytes;
    const auto root = at<std::uint64_t>(page, record + root_in_table);
    if (root != no_page && (root < 2 || root > last_page)) return "a root is outside of the file";
    if (at<std::uint16_t>(page, record + depth_in_table) > tree_depth_max) return "a tree is too deep";
  }
  return nullptr;
}

tl::unexpected<Error> damaged(std::string_view what) {
  return fail(Errc::damaged, fmt::format("this is no database: {}", what));
}

/// The two, in the order of the file.
Result<std::array<std::string, 2>> read_both(const FileHandle& file) {
  std::array<std::string, 2> pages;
  std::uint64_t offset = 0;
  for (std::string& page : pages) {
    auto bytes = file.read_at(offset, meta_page_bytes);
    if (!bytes) return fail(bytes.error());
    page = std::move(*bytes);
    if (const char* wrong = wrong_in_head(page)) return damaged(wrong);
    offset = at<std::uint32_t>(page, tables_at);
  }
  return pages;
}

}  // namespace

std::uint64_t MetaPage::txn_id() const {
  return at<std::uint64_t>(bytes, txn_id_at);
}

std::uint32_t MetaPage::page_bytes() const {
  return at<std::uint32_t>(bytes, tables_at);
}

std::uint64_t MetaPage::last_page() const {
  return at<std::uint64_t>(bytes, last_page_at);
}

std::string_view MetaPage::free_tree() const {
  return std::string_view(bytes).substr(tables_at, table_bytes);
}

std::string_view MetaPage::main_tree() const {
  return std::string_view(bytes).substr(tables_at + table_bytes, table_bytes);
}

std::optional<MetaPage> to_meta_page(std::string bytes) {
  if (bytes.size() != meta_page_bytes || wrong_in_head(bytes) != nullptr) return std::nullopt;
  return MetaPage{std::move(bytes)};
}

Result<MetaPage> read_meta_page(const FileHandle& file) {
  auto pages = read_both(file);
  if (!pages) return fail(pages.error());
  MetaPage first{std::move((*pages)[0])};
  MetaPage second{std::move((*pages)[1])};
  return second.txn_id() > first.txn_id() ? second : first;
}

Result<void> write_meta_pages(FileHandle& file, const MetaPage& meta) {
  std::string bytes = meta.bytes;
  for (std::uint64_t number = 0; number < 2; ++number) {
    put_fixed(bytes.data(), number);  // a page begins with its own number
    if (auto written = file.write_at(number * meta.page_bytes(), bytes); !written) return written;
  }
  return {};
}

Result<void> check_roots(const FileHandle& file, const MetaPage& meta) {
  const auto bytes = file.size();
  if (!bytes) return fail(bytes.error());
  const std::uint64_t pages = *bytes / meta.page_bytes();
  for (std::size_t table = 0; table < 2; ++table) {
    const auto root = at<std::uint64_t>(meta.bytes, tables_at + table * table_bytes + root_in_table);
    if (root == no_page) continue;
    if (root >= pages) return damaged("it ends before what its checkpoint says it holds");
    const auto head = file.read_at(root * meta.page_bytes(), meta_at);
    if (!head) return fail(head.error());
    const auto flags = at<std::uint16_t>(*head, flags_at);
    if (at<std::uint64_t>(*head, 0) != root || (flags != branch_flag && flags != leaf_flag)) {
      return damaged("where its checkpoint says a tree begins is none: one of the two belongs to another database");
    }
  }
  return {};
}

Result<void> check_data_file(const FileHandle& file) {
  const auto bytes = file.size();
  if (!bytes) return fail(bytes.error());
  const auto pages = read_both(file);
  if (!pages) return fail(pages.error());
  const auto page_bytes = at<std::uint32_t>(pages->front(), tables_at);
  if (*bytes % page_bytes != 0) return damaged("it ends within a page");
  for (const std::string& page : *pages) {
    if (const char* wrong = wrong_in_meta(page, page_bytes, *bytes / page_bytes)) return damaged(wrong);
  }
  return {};
}

}  // namespace flotilla::state
