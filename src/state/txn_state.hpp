// Behind the public transactions: what ReadTxn, WriteTxn, Table and Cursor share.
//
// Thread: that of the transaction; a WriteState belongs to the apply thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "flotilla/txn.hpp"
#include "state/environment.hpp"
#include "state/lmdb.hpp"

namespace flotilla::detail {

/// A transaction as tables and cursors see it. A table is known to them by a handle: an LMDB handle, or one of a
/// WriteState's own that stands for a table not made yet.
class TxnState {
 public:
  TxnState(MDB_txn* txn, std::shared_ptr<const state::Catalog> catalog) : txn_(txn), catalog_(std::move(catalog)) {}
  TxnState(const TxnState&) = delete;
  TxnState& operator=(const TxnState&) = delete;
  virtual ~TxnState();

  MDB_txn* txn() const noexcept { return txn_; }
  const state::Catalog& catalog() const noexcept { return *catalog_; }
  /// The LMDB handle; 0: there is no such table.
  virtual MDB_dbi dbi(unsigned handle) const noexcept { return handle; }
  virtual bool writable() const noexcept { return false; }

  /// A fault of the store: not the caller's business, kept until somebody looks. Only the first counts.
  void fault(int code, std::string_view doing);
  const std::optional<Error>& fault() const noexcept { return fault_; }
  int fault_code() const noexcept { return fault_code_; }

  /// Raised by each write: a cursor that stood somewhere before must find its place again.
  std::uint64_t generation() const noexcept { return generation_; }

  /// Reads that end in "not found", also after a fault.
  std::optional<std::string_view> get(MDB_dbi dbi, std::string_view key);
  bool contains_pair(MDB_dbi dbi, std::string_view key, std::string_view value);
  std::uint64_t size(MDB_dbi dbi);

 protected:
  /// Makes every cursor of this transaction inert, so that one kept too long does no harm.
  void detach_cursors() noexcept;

  MDB_txn* txn_;
  std::shared_ptr<const state::Catalog> catalog_;
  std::uint64_t generation_ = 0;
  std::optional<Error> fault_;
  int fault_code_ = 0;

 private:
  friend class CursorState;
  CursorState* cursors_ = nullptr;  ///< all open ones, linked
};

/// A snapshot, and between two of them an idle one of the environment's pool, which owns its LMDB transaction. Its
/// catalog is that of the snapshot (never newer, so every handle in it is good): a table made later reads as absent.
class ReadState final : public TxnState {
 public:
  ReadState() : TxnState(nullptr, nullptr) {}

  Index index();

 private:
  friend class state::Environment;
  std::shared_ptr<state::Environment> environment_;  ///< nullptr: idle
  std::optional<Index> index_;
  // The environment's, guarded by the stripe's lock; linked while it is not idle.
  std::size_t stripe_ = 0;
  std::chrono::steady_clock::time_point begun_;  ///< or a few milliseconds before
  ReadState* older_ = nullptr;
  ReadState* newer_ = nullptr;
};

/// The LMDB write transaction of a batch, as one command after another sees it.
class WriteState final : public TxnState {
 public:
  /// Does not own `txn`, which must live as long as this.
  WriteState(MDB_txn* txn, MDB_dbi reserved, std::shared_ptr<const state::Catalog> catalog);
  ~WriteState() override;

  bool writable() const noexcept override { return true; }
  MDB_dbi dbi(unsigned handle) const noexcept override;

  /// Starts with a clean slate for the command of one entry.
  void begin_command(Term term, Index index, std::uint64_t time);
  /// Ends it: cursors and handles that the command kept are dead.
  void end_command() noexcept;
  /// Whether the command changed anything, so that taking it back means aborting the batch.
  bool wrote() const noexcept { return wrote_; }
  /// The first deterministic misuse (limit, kind, name): it fails the command whatever that returns.
  const std::optional<Error>& misuse() const noexcept { return misuse_; }
  void set_misuse(Errc code, std::string message);

  struct Handle {
    unsigned handle;
    bool exists;
  };
  Handle open_table(std::string_view name, TableKind kind);
  Result<void> put(unsigned handle, TableKind kind, std::string_view key, std::string_view value);
  Result<bool> insert(unsigned handle, TableKind kind, std::string_view key, std::string_view value);
  Result<bool> remove(unsigned handle, TableKind kind, std::string_view key);
  Result<bool> remove(unsigned handle, TableKind kind, std::string_view key, std::string_view value);
  Result<void> clear(unsigned handle);

  Index index() const noexcept { return index_; }
  std::uint64_t time() const noexcept { return time_; }
  std::uint64_t random() noexcept;

  /// Whether this transaction made tables; and all tables as of its commit.
  bool made_tables() const noexcept { return staged_ != nullptr; }
  std::shared_ptr<const state::Catalog> staged_catalog() const noexcept { return catalog_; }

 private:
  struct Missing {
    std::string name;
    TableKind kind;
    MDB_dbi dbi;  ///< 0 until a write makes the table
  };
  Result<void> check(unsigned handle, std::string_view key);
  Result<void> check(unsigned handle, TableKind kind, std::string_view key, std::string_view value);
  Result<MDB_dbi> ensure(unsigned handle);
  Result<MDB_dbi> make_table(Missing& missing);
  tl::unexpected<Error> misused(Errc code, std::string message);
  tl::unexpected<Error> failed(int code, std::string_view doing);
  void before_write() noexcept {
    wrote_ = true;
    ++generation_;
  }

  const MDB_dbi reserved_;
  std::shared_ptr<state::Catalog> staged_;  ///< catalog_, while it may still be added to
  std::vector<Missing> missing_;
  std::optional<Error> misuse_;
  bool wrote_ = false;
  Index index_;
  std::uint64_t time_ = 0;
  std::uint64_t random_ = 0;
};

/// One LMDB cursor, opened when it is first moved.
///
/// In a write transaction it remembers the pair it stands on by value and, after any write, finds its neighbours from
/// there: it depends on none of LMDB's rules for cursors whose pages changed under them (CORRECTNESS G20).
class CursorState {
 public:
  CursorState(TxnState* txn, unsigned handle, TableKind kind);
  CursorState(const CursorState&) = delete;
  CursorState& operator=(const CursorState&) = delete;
  ~CursorState();

  bool first() { return move(MDB_FIRST); }
  bool last() { return move(MDB_LAST); }
  bool seek(std::string_view key);
  bool find(std::string_view key);
  bool find(std::string_view key, std::string_view value);
  bool next();
  bool previous();
  bool next_key();
  bool valid() const noexcept { return valid_; }
  std::string_view key() const noexcept { return valid_ ? key_ : std::string_view(); }
  std::string_view value() const noexcept { return valid_ ? value_ : std::string_view(); }

 private:
  friend class TxnState;
  bool move(MDB_cursor_op op, std::string_view key = {}, std::string_view value = {});
  bool open();
  bool lost() { return valid_ = false; }
  /// To the first pair not before the remembered one; `same` says whether it is that one.
  bool find_place(bool& same);
  bool displaced() const noexcept;
  bool duplicates() const noexcept { return kind_ == TableKind::sorted_duplicates; }

  TxnState* txn_;  ///< nullptr: the transaction ended
  unsigned handle_;
  TableKind kind_;
  state::lmdb::CursorOwner cursor_;
  bool valid_ = false;
  std::string_view key_;
  std::string_view value_;
  std::uint64_t generation_ = 0;  ///< of the transaction when the place was remembered
  std::string saved_key_;
  std::string saved_value_;
  CursorState* previous_cursor_ = nullptr;
  CursorState* next_cursor_ = nullptr;
};

}  // namespace flotilla::detail
