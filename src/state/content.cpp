#include "state/content.hpp"

#include <fcntl.h>

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "base/codec.hpp"
#include "state/content_hash.hpp"
#include "state/environment.hpp"
#include "state/file.hpp"
#include "state/lmdb.hpp"
#include "state/rows.hpp"

namespace flotilla::state {
namespace {

// LMDB 0.9 on a 64-bit machine: MDB_page, MDB_node and MDB_db.
constexpr std::size_t page_header_bytes = 16;
constexpr std::size_t node_header_bytes = 8;
constexpr std::size_t tree_record_bytes = 48;
constexpr std::uint64_t first_page = 2;  // after the meta pages
constexpr std::uint64_t no_page = ~std::uint64_t{0};

constexpr std::uint16_t page_branch = 0x01;
constexpr std::uint16_t page_leaf = 0x02;
constexpr std::uint16_t page_overflow = 0x04;
constexpr std::uint16_t page_dirty = 0x10;
constexpr std::uint16_t page_sub = 0x40;

constexpr std::uint16_t node_big = 0x01;         // the value stands in pages of its own
constexpr std::uint16_t node_tree = 0x02;        // the value is a tree's record
constexpr std::uint16_t node_duplicates = 0x04;  // the value is a page of values, or with node_tree a tree of them

template <class T>
T at(std::string_view bytes, std::size_t offset) {
  return get_fixed<T>(bytes.data() + offset);
}

struct Tree {
  std::uint16_t flags = 0;
  std::uint16_t depth = 0;
  std::uint64_t branch_pages = 0;
  std::uint64_t leaf_pages = 0;
  std::uint64_t overflow_pages = 0;
  std::uint64_t entries = 0;
  std::uint64_t root = no_page;

  static Tree of(std::string_view record) {
    return {at<std::uint16_t>(record, 4),  at<std::uint16_t>(record, 6),  at<std::uint64_t>(record, 8),
            at<std::uint64_t>(record, 16), at<std::uint64_t>(record, 24), at<std::uint64_t>(record, 32),
            at<std::uint64_t>(record, 40)};
  }
};

/// What a tree is for, which says what its nodes may be.
enum class Kind : std::uint8_t { free_pages, tables, plain, sorted_duplicates, values };

struct Node {
  std::uint16_t flags = 0;
  std::uint64_t child = 0;      ///< of a branch
  std::uint32_t data_size = 0;  ///< of a leaf
  std::string_view key;
  std::string_view rest;  ///< of the page, from the end of the key on
};

/// One page, or a page of values inside a leaf's node. nullptr, or what is wrong with it.
const char* parse_nodes(std::string_view page, std::vector<Node>& nodes) {
  nodes.clear();
  if (page.size() < page_header_bytes) return "it is too short";
  const std::size_t lower = at<std::uint16_t>(page, 12);
  const std::size_t upper = at<std::uint16_t>(page, 14);
  if (lower < page_header_bytes || lower % 2 != 0 || lower > upper || upper > page.size()) return "its bounds";
  std::size_t bytes = 0;
  for (std::size_t place = page_header_bytes; place < lower; place += 2) {
    const std::size_t offset = at<std::uint16_t>(page, place);
    if (offset < upper || offset + node_header_bytes > page.size()) return "a node outside of its bounds";
    const std::string_view bytes_of_node = page.substr(offset);
    const std::uint32_t low = at<std::uint16_t>(bytes_of_node, 0);
    const std::uint32_t high = at<std::uint16_t>(bytes_of_node, 2);
    const std::uint16_t flags = at<std::uint16_t>(bytes_of_node, 4);
    const std::size_t key_bytes = at<std::uint16_t>(bytes_of_node, 6);
    if (node_header_bytes + key_bytes > bytes_of_node.size()) return "a key outside of its bounds";
    const std::uint32_t size = low | high << 16;
    nodes.push_back({flags, size | std::uint64_t{flags} << 32, size, bytes_of_node.substr(node_header_bytes, key_bytes),
                     bytes_of_node.substr(node_header_bytes + key_bytes)});
    bytes += node_header_bytes + key_bytes;
  }
  return bytes > page.size() - upper ? "nodes over each other" : nullptr;
}

class Walk {
 public:
  Walk(const FileHandle& file, const MetaPage& meta)
      : file_(file), meta_(meta), page_bytes_(meta.page_bytes()), reached_(meta.last_page() + 1) {}

  Result<Content> run() {
    content_.txn_id = meta_.txn_id();
    if (auto done = walk(Tree::of(meta_.main_tree()), Kind::tables, "the list of tables"); !done) {
      return fail(done.error());
    }
    if (auto done = walk(Tree::of(meta_.free_tree()), Kind::free_pages, "the list of free pages"); !done) {
      return fail(done.error());
    }
    content_.pages = Content::Pages{page_bytes_, first_page + pages_, free_};
    content_.hash = hash_.digest();
    if (auto done = read_rows(); !done) return fail(done.error());
    return std::move(content_);
  }

 private:
  /// Where a walk is within one tree, and what it has found there.
  struct Place {
    Kind kind;
    std::string name;
    Tree found;
    std::string last;          ///< key, or branch's separator, before this place
    bool separator = false;    ///< `last` is one: an equal key may follow
    bool any = false;          ///< `last` is set
    std::string_view table{};  ///< of duplicates: the key they belong to
  };

  tl::unexpected<Error> damage(std::uint64_t page, const Place& in, std::string_view what) const {
    return fail(Errc::damaged,
                fmt::format("page {} at {} of data.mdb, in {}: {}", page, page * page_bytes_, in.name, what));
  }

  Result<void> walk(const Tree& tree, Kind kind, std::string name, const Place* around = nullptr);
  Result<void> page(std::uint64_t number, unsigned depth, Place& in);
  Result<void> leaf_node(std::uint64_t number, const Node& node, Place& in);
  Result<std::string> overflow(std::uint64_t number, std::uint64_t bytes, Place& in);
  Result<void> duplicates(std::uint64_t number, const Node& node, Place& in);
  Result<void> take(std::uint64_t number, std::string_view key, std::string_view value, Place& in);
  Result<void> take_table(std::uint64_t number, std::string_view name, std::string_view record, Place& in);
  Result<void> take_free(std::uint64_t number, std::string_view value, Place& in);
  Result<void> read_rows();

  /// Pages are reached once.
  bool reach(std::uint64_t number, std::uint64_t count = 1) {
    const std::uint64_t end = reached_.size();
    if (number < first_page || number >= end || count > end - number) return false;
    for (std::uint64_t next = number; next < number + count; ++next) {
      if (reached_[next]) return false;
      reached_[next] = true;
    }
    return true;
  }

  Result<std::string> load(std::uint64_t number, Place& in) {
    if (!reach(number)) return damage(number, in, "it is outside of the file, or in use elsewhere, too");
    auto bytes = file_.read_at(number * page_bytes_, page_bytes_);
    if (!bytes) return bytes;
    if (bytes->size() < page_bytes_) return damage(number, in, "the file ends before it does");
    if (at<std::uint64_t>(*bytes, 0) != number) return damage(number, in, "it is another page");
    ++pages_;
    return bytes;
  }

  /// Keys ascend through the whole tree; false: this one does not.
  static bool in_order(std::string_view key, bool separator, Place& in) {
    bool above = !in.any;
    if (in.any && in.kind == Kind::free_pages) {  // native numbers
      if (key.size() != sizeof(std::uint64_t) || in.last.size() != sizeof(std::uint64_t)) return false;
      const auto number = at<std::uint64_t>(key, 0);
      const auto last = at<std::uint64_t>(in.last, 0);
      above = number > last || (number == last && in.separator);
    } else if (in.any) {
      const int order = key.compare(in.last);
      above = order > 0 || (order == 0 && in.separator);
    }
    in.last.assign(key);
    in.separator = separator;
    in.any = true;
    return above;
  }

  const FileHandle& file_;
  const MetaPage& meta_;
  const std::uint32_t page_bytes_;
  std::vector<bool> reached_;
  std::uint64_t pages_ = 0;
  std::uint64_t free_ = 0;
  Content content_;
  ContentHash hash_;
  bool reserved_ = false;                                 ///< the walk is in the table that is ours
  std::map<std::string, std::string, std::less<>> rows_;  ///< of it, without the sessions
};

Result<void> Walk::walk(const Tree& tree, Kind kind, std::string name, const Place* around) {
  Place place{.kind = kind, .name = std::move(name), .found = {}, .last = {}};
  if (around != nullptr) place.table = around->last;
  if (tree.root != no_page) {
    if (tree.depth == 0 || tree.depth > tree_depth_max) return damage(tree.root, place, "its tree's depth");
    if (auto done = page(tree.root, tree.depth, place); !done) return done;
  }
  const Tree& found = place.found;
  if (found.branch_pages != tree.branch_pages || found.leaf_pages != tree.leaf_pages ||
      found.overflow_pages != tree.overflow_pages || found.entries != tree.entries) {
    return fail(
        Errc::damaged,
        fmt::format("data.mdb, in {}: its record says {} entries in {} + {} + {} pages, it has {} in {} + {} + {}",
                    place.name, tree.entries, tree.branch_pages, tree.leaf_pages, tree.overflow_pages, found.entries,
                    found.branch_pages, found.leaf_pages, found.overflow_pages));
  }
  return {};
}

Result<void> Walk::page(std::uint64_t number, unsigned depth, Place& in) {
  const auto bytes = load(number, in);
  if (!bytes) return fail(bytes.error());
  const bool leaf = depth == 1;
  if (at<std::uint16_t>(*bytes, 10) != (leaf ? page_leaf : page_branch)) {
    return damage(number, in, leaf ? "it is no leaf page" : "it is no branch page");
  }
  std::vector<Node> nodes;
  if (const char* wrong = parse_nodes(*bytes, nodes)) return damage(number, in, wrong);
  const std::size_t least = leaf || in.kind == Kind::free_pages ? 1 : 2;
  if (nodes.size() < least) return damage(number, in, "it has too few nodes");
  ++(leaf ? in.found.leaf_pages : in.found.branch_pages);
  for (std::size_t which = 0; which < nodes.size(); ++which) {
    const Node& node = nodes[which];
    // The key of a branch's first node means nothing.
    const bool keyed = leaf || which > 0;
    if (keyed && !in_order(node.key, !leaf, in)) return damage(number, in, "its keys are out of order");
    if (auto done = leaf ? leaf_node(number, node, in) : page(node.child, depth - 1, in); !done) return done;
  }
  return {};
}

Result<void> Walk::leaf_node(std::uint64_t number, const Node& node, Place& in) {
  const bool big = node.flags == node_big && (in.kind == Kind::free_pages || in.kind == Kind::plain);
  const bool table = node.flags == node_tree && in.kind == Kind::tables;
  const bool duplicated = (node.flags == node_duplicates || node.flags == (node_duplicates | node_tree)) &&
                          in.kind == Kind::sorted_duplicates;
  const bool simple = node.flags == 0 && in.kind != Kind::tables;
  if (!big && !table && !duplicated && !simple) return damage(number, in, "a node of a kind that does not belong here");
  if (node.rest.size() < (big ? sizeof(std::uint64_t) : node.data_size))
    return damage(number, in, "a value outside of it");
  if (big) {
    const auto value = overflow(at<std::uint64_t>(node.rest, 0), node.data_size, in);
    if (!value) return fail(value.error());
    return take(number, node.key, *value, in);
  }
  if (duplicated) return duplicates(number, node, in);
  return take(number, node.key, node.rest.substr(0, node.data_size), in);
}

Result<std::string> Walk::overflow(std::uint64_t number, std::uint64_t bytes, Place& in) {
  const std::uint64_t needed = (page_header_bytes - 1 + bytes) / page_bytes_ + 1;
  const auto head = load(number, in);
  if (!head) return head;
  if (at<std::uint16_t>(*head, 10) != page_overflow) return damage(number, in, "it is no overflow page");
  // More than needed where a shorter value took the place of a longer one.
  const auto count = at<std::uint32_t>(*head, 12);
  if (count < needed) return damage(number, in, "it has fewer pages than its value needs");
  if (count > 1 && !reach(number + 1, count - 1))
    return damage(number, in, "its value is outside of the file, or elsewhere, too");
  in.found.overflow_pages += count;
  pages_ += count - 1;
  auto value = file_.read_at(number * page_bytes_ + page_header_bytes, bytes);
  if (value && value->size() < bytes) return damage(number, in, "the file ends before its value does");
  return value;
}

/// The values of one key: a tree, or a page inside the node.
Result<void> Walk::duplicates(std::uint64_t number, const Node& node, Place& in) {
  const std::string_view data = node.rest.substr(0, node.data_size);
  if ((node.flags & node_tree) != 0) {
    if (data.size() != tree_record_bytes) return damage(number, in, "a tree's record of another size");
    const Tree tree = Tree::of(data);
    in.found.entries += tree.entries;
    return walk(tree, Kind::values, in.name, &in);
  }
  std::vector<Node> values;
  if (const char* wrong = parse_nodes(data, values)) return damage(number, in, wrong);
  if ((at<std::uint16_t>(data, 10) & ~page_dirty) != (page_leaf | page_sub))
    return damage(number, in, "no page of values");
  in.found.entries += values.size();
  Place place{.kind = Kind::values, .name = in.name, .found = {}, .last = {}, .table = node.key};
  for (const Node& value : values) {
    if (value.flags != 0 || value.data_size != 0) return damage(number, in, "a value that is none");
    if (!in_order(value.key, false, place)) return damage(number, in, "its values are out of order");
    if (auto done = take(number, value.key, {}, place); !done) return done;
  }
  return {};
}

/// One pair, in order.
Result<void> Walk::take(std::uint64_t number, std::string_view key, std::string_view value, Place& in) {
  ++in.found.entries;
  switch (in.kind) {
    case Kind::tables: return take_table(number, key, value, in);
    case Kind::free_pages: return take_free(number, value, in);
    case Kind::values:
      if (!value.empty()) return damage(number, in, "a value that has one");
      hash_.pair(in.table, key);
      return {};
    case Kind::plain:
    case Kind::sorted_duplicates: break;
  }
  if (!reserved_) {
    hash_.pair(key, value);
  } else if (!key.starts_with(session_prefix)) {  // many, and of no use here
    rows_.emplace(key, value);
  }
  return {};
}

Result<void> Walk::take_table(std::uint64_t number, std::string_view name, std::string_view record, Place& in) {
  if (record.size() != tree_record_bytes) return damage(number, in, "a tree's record of another size");
  const Tree tree = Tree::of(record);
  if ((tree.flags & ~MDB_DUPSORT) != 0) return damage(number, in, "a table of a kind that is not ours");
  const bool sorted = (tree.flags & MDB_DUPSORT) != 0;
  reserved_ = name == reserved_table;
  if (!reserved_) {
    content_.tables.push_back(
        {std::string(name), sorted ? TableKind::sorted_duplicates : TableKind::plain, tree.entries});
    hash_.table(name, content_.tables.back().kind, tree.entries);
  }
  return walk(tree, sorted ? Kind::sorted_duplicates : Kind::plain, fmt::format("table {}", name));
}

/// A count, then as many pages.
Result<void> Walk::take_free(std::uint64_t number, std::string_view value, Place& in) {
  constexpr std::size_t word = sizeof(std::uint64_t);
  if (value.size() < word || at<std::uint64_t>(value, 0) > value.size() / word - 1) {
    return damage(number, in, "a list longer than its place");
  }
  const auto count = at<std::uint64_t>(value, 0);
  for (std::uint64_t which = 1; which <= count; ++which) {
    const auto page = at<std::uint64_t>(value, which * word);
    if (!reach(page)) return damage(number, in, fmt::format("page {} is called free, but it is in use", page));
  }
  free_ += count;
  return {};
}

Result<void> Walk::read_rows() {
  auto applied = read_applied([this](std::string_view key, std::string_view& value) {
    const auto row = rows_.find(key);
    if (row == rows_.end()) return MDB_NOTFOUND;
    value = row->second;
    return 0;
  });
  if (!applied) return fail(applied.error());
  content_.applied = std::move(*applied);
  std::map<std::string, std::optional<TableKind>, std::less<>> recorded;
  for (const auto& [key, value] : rows_) {
    if (key.starts_with(table_prefix)) recorded.emplace(key.substr(table_prefix.size()), decode_kind(value));
    const auto node = id_of_key(key, node_prefix);
    if (!node) continue;
    const auto row = decode_node(value);
    if (!row) return fail(Errc::damaged, fmt::format("the row of node {:016x} is malformed", *node));
    if (*row == NodeRow::removed()) content_.removed.insert(NodeId{*node});
  }
  const bool same = std::equal(
      recorded.begin(), recorded.end(), content_.tables.begin(), content_.tables.end(),
      [](const auto& row, const Content::Table& table) { return row.first == table.name && row.second == table.kind; });
  if (!same) return fail(Errc::damaged, "the tables are not those that are recorded, or not of their kinds");
  return {};
}

}  // namespace

Result<Content> read_content(const std::filesystem::path& data_file, const MetaPage& meta) {
  const auto file = FileHandle::open(data_file, O_RDONLY);
  if (!file) return fail(file.error());
  return Walk(*file, meta).run();
}

Result<Content> read_live_content(const std::filesystem::path& directory) {
  const auto claim = FileClaim::of(directory / "data.mdb");
  if (!claim) return fail(claim.error());
  const auto env = lmdb::open_read_only(directory, 0, static_cast<MDB_dbi>(tables_max + 1));
  if (!env) return fail(env.error());
  const auto txn = lmdb::Txn::begin_read(env->get());
  if (!txn) return fail(txn.error());
  const auto failure = [&](int code) { return fail(lmdb::error_of(code, fmt::format("read {}", directory.string()))); };
  MDB_dbi dbi = 0;
  if (const int code = mdb_dbi_open(txn->get(), reserved_table, 0, &dbi); code != 0) return failure(code);
  const Rows rows(txn->get(), dbi);
  auto applied = read_applied(rows);
  if (!applied) return fail(applied.error());
  Content content{.txn_id = txn->id(), .applied = std::move(*applied)};
  int found = 0;
  const int code = rows.each(table_prefix, [&](std::string_view key, std::string_view value) {
    const std::string name(key.substr(table_prefix.size()));
    MDB_dbi table = 0;
    MDB_stat stat{};
    found = mdb_dbi_open(txn->get(), name.c_str(), 0, &table);
    if (found == 0) found = mdb_stat(txn->get(), table, &stat);
    content.tables.push_back({name, decode_kind(value).value_or(TableKind::plain), stat.ms_entries});
    return found == 0;
  });
  if (code != 0 || found != 0) return failure(code != 0 ? code : found);
  return content;
}

}  // namespace flotilla::state
