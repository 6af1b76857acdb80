// The public transactions, over the classes of txn_state.hpp.
#include "flotilla/txn.hpp"

#include "base/assert.hpp"
#include "state/txn_state.hpp"

namespace flotilla {
namespace {

detail::WriteState& writer(detail::TxnState* state) {
  FLOTILLA_ASSERT(state != nullptr && state->writable());
  return static_cast<detail::WriteState&>(*state);
}

/// The smallest string above every string that begins with `prefix`; nullopt: there is none.
std::optional<std::string> end_of_prefix(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
  if (end.empty()) return std::nullopt;
  end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

std::optional<std::string> to_owned(std::optional<std::string_view> view) {
  if (!view) return std::nullopt;
  return std::string(*view);
}

}  // namespace

// --- Cursor

Cursor::Cursor(std::unique_ptr<detail::CursorState> state) : state_(std::move(state)) {}
Cursor::Cursor(Cursor&&) noexcept = default;
Cursor& Cursor::operator=(Cursor&&) noexcept = default;
Cursor::~Cursor() = default;

bool Cursor::first() {
  return state_->first();
}
bool Cursor::last() {
  return state_->last();
}
bool Cursor::seek(std::string_view key) {
  return state_->seek(key);
}
bool Cursor::find(std::string_view key) {
  return state_->find(key);
}
bool Cursor::find(std::string_view key, std::string_view value) {
  return state_->find(key, value);
}
bool Cursor::next() {
  return state_->next();
}
bool Cursor::previous() {
  return state_->previous();
}
bool Cursor::next_key() {
  return state_->next_key();
}
bool Cursor::valid() const noexcept {
  return state_->valid();
}
std::string_view Cursor::key() const {
  return state_->key();
}
std::string_view Cursor::value() const {
  return state_->value();
}

// --- Range

Range::Range(Cursor cursor, std::string low, std::optional<std::string> high, bool backward, bool only_low_key)
    : cursor_(std::move(cursor)),
      low_(std::move(low)),
      high_(std::move(high)),
      backward_(backward),
      only_low_key_(only_low_key) {}

Range::Iterator Range::begin() {
  return Iterator(start() ? this : nullptr);
}

bool Range::start() {
  if (only_low_key_) return cursor_.find(low_);
  if (!backward_) return cursor_.seek(low_) && inside();
  const bool found = high_ && cursor_.seek(*high_) ? cursor_.previous() : cursor_.last();
  return found && inside();
}

bool Range::step() {
  return (backward_ ? cursor_.previous() : cursor_.next()) && inside();
}

bool Range::inside() const {
  const std::string_view key = cursor_.key();
  if (only_low_key_) return key == low_;
  return key >= low_ && (!high_ || key < *high_);
}

KeyValue Range::Iterator::operator*() const {
  return {range_->cursor_.key(), range_->cursor_.value()};
}

Range::Iterator& Range::Iterator::operator++() {
  if (!range_->step()) range_ = nullptr;
  return *this;
}

// --- Table

bool Table::exists() const noexcept {
  return exists_ || (txn_ != nullptr && txn_->dbi(handle_) != 0);
}

TableKind Table::kind() const noexcept {
  return kind_;
}

std::optional<std::string_view> Table::get(std::string_view key) const {
  return txn_->get(txn_->dbi(handle_), key);
}

bool Table::contains(std::string_view key, std::string_view value) const {
  if (kind_ == TableKind::plain) return get(key) == value;
  return txn_->contains_pair(txn_->dbi(handle_), key, value);
}

Cursor Table::cursor() const {
  return Cursor(std::make_unique<detail::CursorState>(txn_, handle_, kind_));
}

Range Table::range(std::string_view low, std::optional<std::string_view> high) const {
  return {cursor(), std::string(low), to_owned(high), false, false};
}

Range Table::range_backward(std::string_view low, std::optional<std::string_view> high) const {
  return {cursor(), std::string(low), to_owned(high), true, false};
}

Range Table::prefix(std::string_view prefix) const {
  return {cursor(), std::string(prefix), end_of_prefix(prefix), false, false};
}

Range Table::values(std::string_view key) const {
  return {cursor(), std::string(key), std::nullopt, false, true};
}

std::uint64_t Table::size() const {
  return txn_->size(txn_->dbi(handle_));
}

// --- WriteTable

Result<void> WriteTable::put(std::string_view key, std::string_view value) {
  return writer(txn_).put(handle_, kind_, key, value);
}
Result<bool> WriteTable::insert(std::string_view key, std::string_view value) {
  return writer(txn_).insert(handle_, kind_, key, value);
}
Result<bool> WriteTable::remove(std::string_view key) {
  return writer(txn_).remove(handle_, kind_, key);
}
Result<bool> WriteTable::remove(std::string_view key, std::string_view value) {
  return writer(txn_).remove(handle_, kind_, key, value);
}
Result<void> WriteTable::clear() {
  return writer(txn_).clear(handle_);
}

// --- ReadTxn

ReadTxn::ReadTxn(detail::ReadStateOwner state) : state_(std::move(state)) {
  FLOTILLA_ASSERT(state_ != nullptr);
}
ReadTxn::ReadTxn(ReadTxn&&) noexcept = default;
ReadTxn& ReadTxn::operator=(ReadTxn&&) noexcept = default;
ReadTxn::~ReadTxn() = default;

Table ReadTxn::table(std::string_view name) const {
  const auto& catalog = state_->catalog();
  const auto at = catalog.find(name);
  if (at == catalog.end()) return {state_.get(), 0, TableKind::plain, false};
  // The catalog is never newer than the snapshot: a handle made later would reach into another table's place.
  FLOTILLA_ASSERT(at->second.created_by <= mdb_txn_id(state_->txn()));
  return {state_.get(), at->second.dbi, at->second.kind, true};
}

std::vector<std::string> ReadTxn::tables() const {
  std::vector<std::string> names;
  names.reserve(state_->catalog().size());
  for (const auto& [name, entry] : state_->catalog()) names.push_back(name);
  return names;
}

Index ReadTxn::index() const noexcept {
  return state_->index();
}

const std::optional<Error>& ReadTxn::error() const noexcept {
  return state_->fault();
}

// --- WriteTxn

WriteTable WriteTxn::table(std::string_view name) {
  const auto [handle, exists] = writer(state_).open_table(name, TableKind::plain);
  return {state_, handle, TableKind::plain, exists};
}

WriteTable WriteTxn::duplicates_table(std::string_view name) {
  const auto [handle, exists] = writer(state_).open_table(name, TableKind::sorted_duplicates);
  return {state_, handle, TableKind::sorted_duplicates, exists};
}

LogTime WriteTxn::time() const noexcept {
  return LogTime(std::chrono::microseconds(static_cast<std::int64_t>(writer(state_).time())));
}

std::uint64_t WriteTxn::random() noexcept {
  return writer(state_).random();
}

Index WriteTxn::index() const noexcept {
  return writer(state_).index();
}

}  // namespace flotilla
