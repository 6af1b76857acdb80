#include "node/doctor.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "node/start.hpp"
#include "raft/configuration.hpp"
#include "state/directory.hpp"
#include "state/environment.hpp"
#include "state/store.hpp"

namespace flotilla::node {
namespace {

constexpr std::size_t read_bytes = 16u << 20;

/// Whoever reads through it cannot write.
class ReadOnlyFiles final : public log::FileSystem {
 public:
  Result<std::unique_ptr<log::File>> open(const std::string& path, Mode) override {
    return files_.open(path, Mode::read);
  }
  Result<std::vector<std::string>> list(const std::string& directory) override { return files_.list(directory); }
  Result<bool> exists(const std::string& path) override { return files_.exists(path); }
  Result<void> rename(const std::string& from, const std::string&) override { return refuse(from); }
  Result<void> remove(const std::string& path) override { return refuse(path); }
  Result<void> sync_directory(const std::string& directory) override { return refuse(directory); }
  Result<void> make_directory(const std::string& path) override { return refuse(path); }

 private:
  static Result<void> refuse(const std::string& path) { return fail(Errc::io_error, path + " is only looked at"); }
  log::FileSystem& files_ = log::posix_file_system();
};

class Examiner {
 public:
  Examiner(const std::filesystem::path& data_dir, const ExamineOptions& options) : options_(options) {
    found_.directory = data_dir;
  }

  Examination run() {
    look();
    return std::move(found_);
  }

 private:
  void look() {
    std::error_code code;
    if (!std::filesystem::is_directory(dir(), code)) {
      return problem("directory", {Errc::not_found, fmt::format("{} is no directory", dir().string())});
    }
    const auto lock = DirectoryLock::share(dir());
    found_.locked = lock.has_value();
    if (!lock && lock.error() == Errc::in_use) {
      found_.live = true;
      found_.holder = DirectoryLock::holder(dir());
    } else if (!lock && !(lock.error() == Errc::not_found)) {
      return problem("directory", lock.error());
    }
    auto identity = log::read_identity(files_, identity_path(dir()));
    if (identity) found_.identity = *identity;
    const bool none = !identity && identity.error() == Errc::not_found;
    if (!identity && !none) problem("identity", identity.error());
    list_segments();
    if (found_.live) {
      look_at_live();
    } else if (none) {
      look_at_unfinished();
    } else {
      look_at_member();
    }
  }

  const std::filesystem::path& dir() const { return found_.directory; }
  void problem(std::string_view part, Error error) { found_.problems.push_back({part, std::move(error)}); }
  template <class... Values>
  void then(fmt::format_string<Values...> text, Values&&... values) {
    found_.start.push_back(fmt::format(text, std::forward<Values>(values)...));
  }

  void list_segments() {
    auto segments = log::list_segments(files_, log_path(dir()));
    if (segments) {
      found_.segments = std::move(*segments);
    } else if (!(segments.error() == Errc::not_found)) {
      problem("log", segments.error());
    }
  }

  /// Nothing that a member who goes on would disturb, and nothing that would disturb it.
  void look_at_live() {
    if (!look_at_directory() || !look_at_checkpoint()) return;
    auto content = state::read_live_content(database());
    if (!content) return problem("database", content.error());
    found_.content = std::move(*content);
  }

  void look_at_unfinished() {
    if (auto checked = check_unfinished(files_, dir()); !checked) return problem("directory", checked.error());
    const bool left = !found_.segments.empty() || std::filesystem::exists(state_path(dir()));
    then("{}founds a cluster of one, or joins one: there is no member here yet",
         left ? "removes what an interrupted first start left, and " : "");
  }

  void look_at_member() {
    if (auto parts = check_parts(files_, dir()); !parts) return problem("directory", parts.error());
    look_at_log();
    if (!look_at_directory() || !look_at_checkpoint()) return;
    look_at_holder();
    look_at_content();
    if (found_.sound()) agree();
    if (!found_.sound()) found_.start.clear();
  }

  void look_at_log() {
    const log::LogOptions options{.directory = log_path(dir())};
    const auto chain = log::walk(files_, options);
    if (!chain) return problem("log", chain.error());
    log_ = log::Log::read_only(files_, options, *chain);
    found_.log = log_->recovered();
    if (auto held = check_not_emptied(*found_.log, dir()); !held) problem("log", held.error());
    if (!chain->torn) return;
    const bool some = !chain->segments.empty();
    const std::uint64_t segment = some ? chain->segments.back().id : chain->dead.front().id;
    found_.torn_tail = Examination::TornTail{log::segment_name(segment), some ? chain->end_offset : 0};
    then("cuts the torn tail of the log: what was being written when the member ended, and was never acknowledged");
  }

  bool look_at_directory() {
    auto state = state::Directory::look(dir());
    if (!state) {
      problem("directory", state.error());
      return false;
    }
    found_.database = fmt::format("state.{}", state->number);
    if (found_.live) return true;  // they may be its work
    found_.leftovers = std::move(state->leftovers);
    for (const std::string& name : found_.leftovers) then("removes {}, which an interruption left", name);
    return true;
  }

  std::filesystem::path database() const { return dir() / found_.database; }

  bool look_at_checkpoint() {
    auto checkpoint = state::Store::checkpoint_of(database());
    if (!checkpoint) {
      problem("checkpoint", checkpoint.error());
      return false;
    }
    found_.checkpoint = std::move(*checkpoint);
    return true;
  }

  void look_at_holder() {
    const auto holder = state::lock_holder(database() / "lock.mdb");
    if (!holder || *holder == 0) return;
    then("waits 2 s for process {} to close the database, then refuses", *holder);
  }

  void look_at_content() {
    if (!options_.content || !found_.checkpoint) return;
    auto content = state::read_content(database() / "data.mdb", found_.checkpoint->meta);
    if (!content) return problem("database", content.error());
    const auto as_said =
        state::Store::check_taken_back(database(), *found_.checkpoint, content->txn_id, content->applied);
    if (!as_said) problem("database", as_said.error());
    found_.content = std::move(*content);
  }

  /// Log and database belong together; then a start goes on.
  void agree() {
    state::Applied applied;
    if (found_.checkpoint) applied = {.index = found_.checkpoint->index, .term = found_.checkpoint->term};
    if (found_.content) applied = found_.content->applied;
    const TermAt term_at = [this](Index index) { return log_->term_at(index); };
    if (found_.checkpoint) {
      then("takes the database back to its checkpoint at entry {}", applied.index.value);
    } else {
      then("makes the database anew: there is none");
    }
    if (found_.checkpoint && found_.checkpoint->installed) {
      const auto anew = must_begin_anew(applied, *found_.log, term_at);
      if (!anew) return problem("log", anew.error());
      if (*anew) {
        then("begins the log anew after entry {}, where the installed snapshot ends", applied.index.value);
        return finish(applied.configuration);
      }
    }
    if (auto checked = check_against_log(applied, *found_.log, term_at); !checked) {
      return problem("log", checked.error());
    }
    replay(applied);
  }

  void replay(const state::Applied& applied) {
    raft::Configuration newest = applied.configuration;
    Index last = std::min(found_.log->commit_index, found_.log->last_index);
    for (Index next = applied.index.next(); next <= found_.log->last_index;) {
      const auto entries = log_->read(next, read_bytes);
      if (!entries) return problem("log", entries.error());
      if (entries->empty())
        return problem("log", {Errc::damaged, fmt::format("the log lacks its entry {}", next.value)});
      next = entries->back().index.next();
      for (const raft::Entry& entry : *entries) {
        if (entry.type == raft::EntryType::configuration) take_configuration(entry, last, newest);
      }
    }
    if (newest.ids() == std::vector<NodeId>{found_.identity->node_id}) last = found_.log->last_index;
    if (last > applied.index) then("applies entries {} to {} of the log again", applied.index.next().value, last.value);
    finish(newest);
  }

  void take_configuration(const raft::Entry& entry, Index committed, raft::Configuration& newest) {
    auto next = raft::decode_configuration(entry.payload.view());
    if (!next) return;
    const NodeId id = found_.identity->node_id;
    removed_ = removed_ || (entry.index <= committed && newest.contains(id) && !next->contains(id));
    newest = std::move(*next);
  }

  void finish(const raft::Configuration& newest) {
    const NodeId id = found_.identity->node_id;
    if (removed_ || (found_.content && found_.content->removed.contains(id)))
      return problem("directory", removed(dir()));
    then("raises the incarnation to {}", found_.identity->incarnation + 1);
    if (!found_.content) return;  // and without it nothing says who the members are
    if (!found_.identity->cluster_id) {
      then("joins a cluster: this member belongs to none yet");
    } else if (newest.ids() == std::vector<NodeId>{id}) {
      then("leads: the cluster has no other member");
    } else {
      then("looks for the leader of its {} members", newest.ids().size());
    }
  }

  const ExamineOptions options_;
  Examination found_;
  ReadOnlyFiles files_;
  std::unique_ptr<log::Log> log_;
  bool removed_ = false;
};

}  // namespace

Examination examine(const std::filesystem::path& data_dir, const ExamineOptions& options) {
  return Examiner(data_dir, options).run();
}

}  // namespace flotilla::node
