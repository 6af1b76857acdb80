#include "state/txn_state.hpp"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "state/rows.hpp"

namespace flotilla::detail {

using state::lmdb::to_val;
using state::lmdb::to_view;

namespace {

// Handles of a WriteState. LMDB's own are small numbers (at most tables_max + 2).
constexpr unsigned missing_bit = 1u << 31;                          ///< the rest is a position in missing_
constexpr unsigned refused = std::numeric_limits<unsigned>::max();  ///< the name was not allowed

bool key_fits(std::string_view key) noexcept {
  return !key.empty() && key.size() <= key_bytes_max;
}
bool duplicate_fits(std::string_view value) noexcept {
  return !value.empty() && value.size() <= duplicate_bytes_max;
}

/// SplitMix64: every state gives another value, and neighbouring seeds give unrelated ones.
std::uint64_t split_mix(std::uint64_t& state) noexcept {
  std::uint64_t z = (state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

}  // namespace

// --- TxnState

TxnState::~TxnState() {
  detach_cursors();
}

void TxnState::detach_cursors() noexcept {
  while (cursors_ != nullptr) {
    CursorState* const cursor = cursors_;
    cursors_ = cursor->next_cursor_;
    cursor->cursor_.reset();
    cursor->valid_ = false;
    cursor->txn_ = nullptr;
  }
}

void TxnState::fault(int code, std::string_view doing) {
  FLOTILLA_ASSERT(code != 0);
  if (fault_) return;
  fault_ = state::lmdb::error_of(code, doing);
  fault_code_ = code;
}

std::optional<std::string_view> TxnState::get(MDB_dbi dbi, std::string_view key) {
  if (dbi == 0 || fault_ || !key_fits(key)) return std::nullopt;
  MDB_val key_val = to_val(key);
  MDB_val value{};
  const int code = mdb_get(txn_, dbi, &key_val, &value);
  if (code == 0) return to_view(value);
  if (code != MDB_NOTFOUND) fault(code, "get");
  return std::nullopt;
}

bool TxnState::contains_pair(MDB_dbi dbi, std::string_view key, std::string_view value) {
  if (dbi == 0 || fault_ || !key_fits(key) || !duplicate_fits(value)) return false;
  MDB_cursor* raw = nullptr;
  int code = mdb_cursor_open(txn_, dbi, &raw);
  const state::lmdb::CursorOwner cursor(raw);
  if (code == 0) {
    MDB_val key_val = to_val(key);
    MDB_val value_val = to_val(value);
    code = mdb_cursor_get(raw, &key_val, &value_val, MDB_GET_BOTH);
  }
  if (code != 0 && code != MDB_NOTFOUND) fault(code, "get a pair");
  return code == 0;
}

std::uint64_t TxnState::size(MDB_dbi dbi) {
  if (dbi == 0 || fault_) return 0;
  MDB_stat stat{};
  if (const int code = mdb_stat(txn_, dbi, &stat); code != 0) {
    fault(code, "stat a table");
    return 0;
  }
  return stat.ms_entries;
}

// --- ReadState

void EndRead::operator()(ReadState* state) const noexcept {
  state::Environment::end_read(std::unique_ptr<ReadState>(state));
}

Index ReadState::index() {
  if (!index_) {
    state::AppliedRow row;
    const auto bytes = get(environment_->reserved(), state::applied_key);
    if (bytes && state::decode_applied(*bytes, row)) index_ = row.index;
  }
  return index_.value_or(Index{0});
}

// --- WriteState

WriteState::WriteState(MDB_txn* txn, MDB_dbi reserved, std::shared_ptr<const state::Catalog> catalog)
    : TxnState(txn, std::move(catalog)), reserved_(reserved) {
  FLOTILLA_ASSERT(txn_ != nullptr);
  FLOTILLA_ASSERT(catalog_ != nullptr);
}

WriteState::~WriteState() {
  detach_cursors();
}

MDB_dbi WriteState::dbi(unsigned handle) const noexcept {
  if (handle == refused) return 0;
  if ((handle & missing_bit) == 0) return handle;
  const std::size_t position = handle & ~missing_bit;
  return position < missing_.size() ? missing_[position].dbi : 0;
}

void WriteState::begin_command(Term term, Index index, std::uint64_t time) {
  FLOTILLA_ASSERT(missing_.empty());
  FLOTILLA_ASSERT(!fault_);
  misuse_.reset();
  wrote_ = false;
  index_ = index;
  time_ = time;
  std::uint64_t seed = term.value;
  random_ = split_mix(seed) ^ index.value;
}

void WriteState::end_command() noexcept {
  detach_cursors();
  missing_.clear();
}

std::uint64_t WriteState::random() noexcept {
  return split_mix(random_);
}

void WriteState::set_misuse(Errc code, std::string message) {
  if (!misuse_) misuse_ = Error(code, std::move(message));
}

tl::unexpected<Error> WriteState::misused(Errc code, std::string message) {
  Error error(code, std::move(message));
  if (!misuse_) misuse_ = error;
  return fail(std::move(error));
}

tl::unexpected<Error> WriteState::failed(int code, std::string_view doing) {
  fault(code, doing);
  return fail(*fault_);
}

WriteState::Handle WriteState::open_table(std::string_view name, TableKind kind) {
  constexpr std::string_view reserved_prefix = "__";
  if (const auto at = catalog_->find(name); at != catalog_->end()) {
    if (at->second.kind == kind) return {at->second.dbi, true};
    set_misuse(Errc::invalid_argument, fmt::format("table {} is of the other kind", name));
    return {refused, false};
  }
  if (name.empty() || name.size() > table_name_bytes_max || name.starts_with(reserved_prefix) ||
      name.find('\0') != std::string_view::npos) {
    set_misuse(Errc::invalid_argument,
               fmt::format("a table name has 1 to {} bytes, none of them zero, and does not begin with \"__\"",
                           table_name_bytes_max));
    return {refused, false};
  }
  for (std::size_t i = 0; i < missing_.size(); ++i) {
    if (missing_[i].name != name) continue;
    if (missing_[i].kind == kind) return {missing_bit | static_cast<unsigned>(i), false};
    set_misuse(Errc::invalid_argument, fmt::format("table {} is of the other kind", name));
    return {refused, false};
  }
  missing_.push_back({std::string(name), kind, 0});
  return {missing_bit | static_cast<unsigned>(missing_.size() - 1), false};
}

Result<void> WriteState::check(unsigned handle, std::string_view key) {
  if (fault_) return fail(*fault_);
  if (handle == refused) {
    FLOTILLA_ASSERT(misuse_);
    return fail(*misuse_);
  }
  if (key_fits(key)) return {};
  return misused(Errc::invalid_argument, fmt::format("a key has 1 to {} bytes, not {}", key_bytes_max, key.size()));
}

Result<void> WriteState::check(unsigned handle, TableKind kind, std::string_view key, std::string_view value) {
  if (auto checked = check(handle, key); !checked) return checked;
  if (kind == TableKind::sorted_duplicates) {
    if (duplicate_fits(value)) return {};
    return misused(Errc::invalid_argument, fmt::format("a value in a sorted-duplicates table has 1 to {} bytes, not {}",
                                                       duplicate_bytes_max, value.size()));
  }
  if (value.size() <= value_bytes_max) return {};
  return misused(Errc::invalid_argument,
                 fmt::format("a value has at most {} bytes, not {}", value_bytes_max, value.size()));
}

Result<MDB_dbi> WriteState::ensure(unsigned handle) {
  const MDB_dbi known = dbi(handle);
  if (known != 0) return known;
  const std::size_t position = handle & ~missing_bit;
  FLOTILLA_ASSERT((handle & missing_bit) != 0 && position < missing_.size());
  return make_table(missing_[position]);
}

Result<MDB_dbi> WriteState::make_table(Missing& missing) {
  FLOTILLA_ASSERT(missing.dbi == 0);
  FLOTILLA_ASSERT(!catalog_->contains(missing.name));
  if (catalog_->size() >= tables_max) {
    return misused(Errc::too_many_tables, fmt::format("there are {} tables already", catalog_->size()));
  }
  before_write();
  const unsigned flags = MDB_CREATE | (missing.kind == TableKind::sorted_duplicates ? MDB_DUPSORT : 0u);
  MDB_dbi dbi = 0;
  if (const int code = mdb_dbi_open(txn_, missing.name.c_str(), flags, &dbi); code != 0) {
    return failed(code, "make a table");
  }
  if (const int code = state::Rows(txn_, reserved_).put(state::table_key(missing.name), state::encode(missing.kind));
      code != 0) {
    return failed(code, "record a table");
  }
  // A copy, so that snapshots and a batch that aborts keep the catalog they had.
  if (staged_ == nullptr) catalog_ = staged_ = std::make_shared<state::Catalog>(*catalog_);
  staged_->emplace(missing.name, state::TableEntry{dbi, missing.kind, mdb_txn_id(txn_)});
  missing.dbi = dbi;
  return dbi;
}

Result<void> WriteState::put(unsigned handle, TableKind kind, std::string_view key, std::string_view value) {
  if (auto checked = check(handle, kind, key, value); !checked) return checked;
  const auto dbi = ensure(handle);
  if (!dbi) return fail(dbi.error());
  before_write();
  MDB_val key_val = to_val(key);
  MDB_val value_val = to_val(value);
  const int code = mdb_put(txn_, *dbi, &key_val, &value_val, 0);
  if (code != 0) return failed(code, "put");
  return {};
}

Result<bool> WriteState::insert(unsigned handle, TableKind kind, std::string_view key, std::string_view value) {
  if (auto checked = check(handle, kind, key, value); !checked) return fail(checked.error());
  const bool duplicates = kind == TableKind::sorted_duplicates;
  // Looked up first: an insert that changes nothing must not count as a write.
  const MDB_dbi known = dbi(handle);
  const bool there = duplicates ? contains_pair(known, key, value) : get(known, key).has_value();
  if (fault_) return fail(*fault_);
  if (there) return false;
  if (auto put_done = put(handle, kind, key, value); !put_done) return fail(put_done.error());
  return true;
}

Result<bool> WriteState::remove(unsigned handle, TableKind, std::string_view key) {
  if (auto checked = check(handle, key); !checked) return fail(checked.error());
  const MDB_dbi known = dbi(handle);
  if (known == 0) return false;
  MDB_val key_val = to_val(key);
  const int code = mdb_del(txn_, known, &key_val, nullptr);
  if (code == MDB_NOTFOUND) return false;
  before_write();
  if (code != 0) return failed(code, "remove");
  return true;
}

Result<bool> WriteState::remove(unsigned handle, TableKind kind, std::string_view key, std::string_view value) {
  if (auto checked = check(handle, kind, key, value); !checked) return fail(checked.error());
  const MDB_dbi known = dbi(handle);
  if (known == 0) return false;
  if (kind == TableKind::plain) {
    // LMDB would not look at the value.
    if (get(known, key) != value) {
      if (fault_) return fail(*fault_);
      return false;
    }
    return remove(handle, kind, key);
  }
  MDB_val key_val = to_val(key);
  MDB_val value_val = to_val(value);
  const int code = mdb_del(txn_, known, &key_val, &value_val);
  if (code == MDB_NOTFOUND) return false;
  before_write();
  if (code != 0) return failed(code, "remove a pair");
  return true;
}

Result<void> WriteState::clear(unsigned handle) {
  constexpr std::string_view any_key = "k";
  if (auto checked = check(handle, any_key); !checked) return checked;
  const MDB_dbi known = dbi(handle);
  if (known == 0 || size(known) == 0) {
    if (fault_) return fail(*fault_);
    return {};
  }
  before_write();
  if (const int code = mdb_drop(txn_, known, 0); code != 0) return failed(code, "clear a table");
  return {};
}

// --- CursorState

CursorState::CursorState(TxnState* txn, unsigned handle, TableKind kind) : txn_(txn), handle_(handle), kind_(kind) {
  FLOTILLA_ASSERT(txn_ != nullptr);
  next_cursor_ = txn_->cursors_;
  if (next_cursor_ != nullptr) next_cursor_->previous_cursor_ = this;
  txn_->cursors_ = this;
}

CursorState::~CursorState() {
  if (txn_ == nullptr) return;
  (previous_cursor_ != nullptr ? previous_cursor_->next_cursor_ : txn_->cursors_) = next_cursor_;
  if (next_cursor_ != nullptr) next_cursor_->previous_cursor_ = previous_cursor_;
}

bool CursorState::open() {
  if (txn_ == nullptr || txn_->fault()) return false;
  if (cursor_ != nullptr) return true;
  const MDB_dbi dbi = txn_->dbi(handle_);
  if (dbi == 0) return false;  // looked up again at the next move: a command may make the table meanwhile
  MDB_cursor* raw = nullptr;
  if (const int code = mdb_cursor_open(txn_->txn(), dbi, &raw); code != 0) {
    txn_->fault(code, "open a cursor");
    return false;
  }
  cursor_.reset(raw);
  return true;
}

bool CursorState::move(MDB_cursor_op op, std::string_view key, std::string_view value) {
  if (!open()) return lost();
  MDB_val key_val = to_val(key);
  MDB_val value_val = to_val(value);
  int code = mdb_cursor_get(cursor_.get(), &key_val, &value_val, op);
  // This one leaves the caller's key in place, which the caller may not keep.
  if (code == 0 && op == MDB_GET_BOTH_RANGE) {
    code = mdb_cursor_get(cursor_.get(), &key_val, &value_val, MDB_GET_CURRENT);
  }
  if (code != 0) {
    if (code != MDB_NOTFOUND) txn_->fault(code, "move a cursor");
    return lost();
  }
  key_ = to_view(key_val);
  value_ = to_view(value_val);
  if (txn_->writable()) {
    generation_ = txn_->generation();
    saved_key_ = key_;
    if (duplicates()) saved_value_ = value_;
  }
  return valid_ = true;
}

bool CursorState::seek(std::string_view key) {
  if (key.empty()) return first();
  if (key.size() <= key_bytes_max) return move(MDB_SET_RANGE, key);
  // No key is that long: the first one behind it is the first behind its longest allowed prefix.
  const std::string_view longest = key.substr(0, key_bytes_max);
  if (!move(MDB_SET_RANGE, longest)) return false;
  return key_ == longest ? move(MDB_NEXT_NODUP) : true;
}

bool CursorState::find(std::string_view key) {
  return key_fits(key) ? move(MDB_SET_KEY, key) : lost();
}

bool CursorState::find(std::string_view key, std::string_view value) {
  if (!duplicates()) return find(key) && value_ >= value ? true : lost();
  if (value.empty()) return find(key);
  if (!key_fits(key)) return lost();
  const std::string_view longest = value.substr(0, duplicate_bytes_max);
  if (!move(MDB_GET_BOTH_RANGE, key, longest)) return false;
  return value_ < value ? move(MDB_NEXT_DUP) : true;
}

bool CursorState::displaced() const noexcept {
  return txn_ != nullptr && txn_->writable() && generation_ != txn_->generation();
}

bool CursorState::find_place(bool& same) {
  const std::string key = saved_key_;
  const std::string value = saved_value_;
  same = false;
  if (duplicates() && move(MDB_GET_BOTH_RANGE, key, value)) {
    same = value_ == value;
    return true;
  }
  if (!move(MDB_SET_RANGE, key)) return false;
  if (key_ != key) return true;
  if (duplicates()) return move(MDB_NEXT_NODUP);  // all of the key's values are before the remembered one
  return same = true;
}

bool CursorState::next() {
  if (!valid_) return false;
  if (!displaced()) return move(MDB_NEXT);
  bool same = false;
  return find_place(same) && same ? move(MDB_NEXT) : valid_;
}

bool CursorState::previous() {
  if (!valid_) return false;
  if (!displaced()) return move(MDB_PREV);
  bool same = false;
  return find_place(same) ? move(MDB_PREV) : last();
}

bool CursorState::next_key() {
  if (!valid_) return false;
  if (!displaced()) return move(MDB_NEXT_NODUP);
  const std::string key = saved_key_;
  if (!seek(key)) return false;
  return key_ == key ? move(MDB_NEXT_NODUP) : true;
}

}  // namespace flotilla::detail
