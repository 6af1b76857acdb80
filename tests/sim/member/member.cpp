#include "member.hpp"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace flotilla::sim {
namespace {

constexpr std::string_view table = "lists";

/// A list's value: its length, then its newest operation's id. Small, and different after every append.
std::size_t length_of(std::optional<std::string_view> value) {
  return value ? std::stoull(std::string(*value)) : 0;
}

}  // namespace

SimMember::SimMember(test::SimScheduler& scheduler, test::SimNetwork& network, History& history, Oracle& oracle,
                     MemberOptions options)
    : scheduler_(scheduler), network_(network), history_(history), oracle_(oracle), options_(std::move(options)) {
  make_directories();
}

void SimMember::make_directories() {
  files_ = std::make_unique<log::MemoryFileSystem>();
  faulty_ = std::make_unique<log::FaultyFileSystem>(*files_);
  std::filesystem::create_directories(options_.directory);
  std::filesystem::path above;
  for (const auto& part : options_.directory) {
    const std::filesystem::path path = above / part;
    const bool made =
        files_->make_directory(path.string()) && (above.empty() || files_->sync_directory(above.string()));
    if (!made && !above.empty()) history_.broken("the simulated disk refuses " + path.string());
    above = path;
  }
}

SimMember::~SimMember() {
  if (running()) kill();
  std::error_code code;
  std::filesystem::remove_all(options_.directory, code);
}

Options SimMember::database_options() const {
  Options options;
  options.data_dir = options_.directory;
  options.listen = address();
  options.found = options_.found;
  options.join = options_.join;
  options.map_size = 4u << 20;
  options.segment_bytes = 8u << 10;
  options.log_sink = [this](LogLevel, std::string_view line) {
    if (options_.verbose)
      fmt::print("{:10.6f} {} {}\n", std::chrono::duration<double>(scheduler_.now()).count(), options_.host, line);
  };
  return options;
}

Commands SimMember::commands() {
  Commands commands;
  const auto append = [this](WriteTxn& txn, const Args& args, bool fails) -> Result<Bytes> {
    const std::uint64_t id = std::stoull(std::string(args[1]));
    history_.ran(id, txn.index());
    const std::size_t length = length_of(txn.table(table).get(args[0])) + 1;
    if (auto put = txn.table(table).put(args[0], fmt::format("{} {}", length, id)); !put) return fail(put.error());
    if (fails) return fail(Errc::command_failed, "on purpose, after writing");
    return std::to_string(length);
  };
  commands.add("append", [append](WriteTxn& txn, const Args& args) { return append(txn, args, false); });
  commands.add("append_and_fail", [append](WriteTxn& txn, const Args& args) { return append(txn, args, true); });
  return commands;
}

Result<void> SimMember::start() {
  const Options options = database_options();
  auto running = std::make_unique<Running>(scheduler_, network_, options_.host, scheduler_.random() | 1);
  auto started =
      node::start({.files = *faulty_, .random = scheduler_.random(), .prepare_ahead = false, .sync_state = false},
                  options, commands());
  if (!started) return fail(started.error());
  running->started.emplace(std::move(*started));
  running->threads->loop.set_clock_rate(options_.clock_rate);
  running->threads->log_loop.set_post_delay(options_.disk_delay);
  running->threads->apply_loop.set_post_delay(options_.apply_delay);
  running->threads->bulk_loop.set_post_delay(options_.apply_delay);
  running->threads->checkpoint_loop.set_post_delay(options_.apply_delay);
  if (auto listening = running->mux.listen(address()); !listening) return listening;
  node::NodeOptions node;
  node.cluster_id = running->started->identity.cluster_id;
  node.node_id = running->started->identity.node_id;
  node.incarnation = running->started->identity.incarnation;
  node.advertise = address();
  node.join = options.join;
  node.seed = scheduler_.random();
  node.batch = {64, 1u << 20};
  node.apply_interval = options_.apply_interval;
  node.checkpoints = {options_.checkpoint_bytes, options_.checkpoint_bytes, options_.checkpoint_interval};
  node.trailing_entries = options_.trailing_entries;

  node.log_cache_bytes = options_.log_cache_bytes;
  node.sync_state = false;
  node.disk_reserve_bytes = 0;
  node.log_sink = options.log_sink;
  node.wall_clock = [this] { return static_cast<std::uint64_t>(scheduler_.now().count() / 1000); };
  node.keep_cluster_id = [this, identity = running->started->identity, options](const ClusterId& id) mutable {
    identity.cluster_id = id;
    return log::write_identity(*faulty_, node::identity_path(options.data_dir), identity);
  };
  running->node = std::make_unique<node::Node>(
      node::Node::Parts{running->threads->loop, running->threads->log_loop, running->threads->apply_loop,
                        running->threads->bulk_loop, running->threads->checkpoint_loop, running->transport,
                        running->mux, *running->started->log, *running->started->store, *running->started->directory,
                        running->calls},
      std::move(node), std::move(running->started->restored));
  running_ = std::move(running);
  id_ = running_->started->identity.node_id;
  oracle_.add(id_, *this);
  ++starts_;
  running_->threads->loop.post([node = running_->node.get()] { node->start(); });
  return {};
}

void SimMember::stop_threads() {
  // They stop where they are; nothing of what they were about to do happens.
  running_->threads->loop.stop();
  running_->threads->log_loop.stop();
  running_->threads->apply_loop.stop();
  running_->threads->bulk_loop.stop();
  running_->threads->checkpoint_loop.stop();
}

void SimMember::lose_power(const Survives& survives) {
  if (running()) stop_threads();
  files_->crash(survives);
  if (!survives()) lose_meta_pages();
  end();
}

/// LMDB's record of its newest transaction did not survive. (What else of the database may be lost is for crash
/// images.)
void SimMember::lose_meta_pages() const {
  constexpr std::uint64_t meta_bytes = 152;
  constexpr std::uint64_t page_bytes = 4096;
  auto file = state::FileHandle::open(options_.directory / "state" / "data.mdb", O_RDWR);
  if (!file) return;  // there is none yet
  for (const std::uint64_t offset : {std::uint64_t{0}, page_bytes}) {
    static_cast<void>(file->write_at(offset, std::string(meta_bytes, '\xff')));
  }
}

void SimMember::kill() {
  if (running()) stop_threads();
  end();
}

void SimMember::close() {
  running_->node->stop(Error(Errc::shutting_down, "closed"));
  stop_threads();
  running_->node->loop_ended();
  static_cast<void>(running_->started->store->checkpoint());
  end();
}

/// What the log says is durable must be there when it is opened again, whatever else survives.
void SimMember::end() {
  std::vector<Term> claimed;
  Index first{1};
  if (running()) {
    ahead_ = ahead();
    network_.kill(options_.host);
    log::Log& log = *running_->started->log;
    first = log.first_index();
    for (Index index = first; index <= log.last_index(); ++index) {
      const auto term = log.term_at(index);
      if (!term) break;  // it failed: then it claims nothing any more
      claimed.push_back(*term);
    }
    snapshots_installed_ += status().snapshots_installed;
    ended_.push_back(std::move(running_->threads));
    running_.reset();
  } else {
    for (const DiskLog::Stamp& stamp : disk_.entries) claimed.push_back(stamp.term);
    first = disk_.first_index;
  }
  mend_files();
  if (!id_) return;  // its first start failed: it is nobody yet
  auto disk = read();
  if (!disk) return history_.broken(fmt::format("{} is unreadable after its end: {}", host(), disk.error().message()));
  disk_ = std::move(*disk);
  for (std::size_t i = 0; i < claimed.size(); ++i) {
    const Index index = first + i;
    if (index < disk_.first_index || disk_.term_at(index) == claimed[i]) continue;
    history_.broken(fmt::format("{} lost the durable entry {} of term {}", host(), index.value, claimed[i].value));
    break;
  }
  oracle_.ended(id_, disk_);
  if (!ahead_ || disk_.last_index() >= ahead_->index) return;
  disk_.entries.clear();
  disk_.first_index = ahead_->index.next();
  disk_.base_term = ahead_->term;
}

// ---- damage ----

void SimMember::take_image() {
  if (ahead()) return;
  image_ = files_->clone();
  image_->crash([] { return false; });
  image_configuration_index_ = core().configuration_index();
  const std::filesystem::path copy = options_.directory.string() + "-image";
  constexpr auto as_they_are = std::filesystem::copy_options::recursive | std::filesystem::copy_options::copy_symlinks;
  std::filesystem::remove_all(copy);
  std::filesystem::copy(options_.directory, copy, as_they_are);
}

void SimMember::set_back() {
  files_ = std::move(image_);
  faulty_ = std::make_unique<log::FaultyFileSystem>(*files_);
  std::filesystem::remove_all(options_.directory);
  std::filesystem::rename(options_.directory.string() + "-image", options_.directory);
  auto disk = read();
  if (!disk) return history_.broken(fmt::format("an image of {}: {}", host(), disk.error().message()));
  disk_ = std::move(*disk);
  oracle_.set_back(id_, disk_);
}

void SimMember::rot() {
  std::vector<Place> places = blocks(*files_, log_directory());
  if (!places.empty()) places.pop_back();
  const std::string identity = options_.directory / "node";
  Place place{identity, 0, files_->contents(identity).size()};
  if (!places.empty() && !scheduler_.chance(0.1)) place = places[scheduler_.below(places.size())];
  flip_bit(place);
}

void SimMember::rot_newest_entries() {
  const std::vector<Place> places = blocks(*files_, log_directory());
  const auto newest =
      std::find_if(places.rbegin(), places.rend(), [](const Place& place) { return place.holds_entries; });
  if (newest == places.rend()) return history_.broken(fmt::format("{} has no entries", host()));
  flip_bit(*newest);
}

void SimMember::flip_bit(const Place& place) {
  std::string bytes = files_->contents(place.path);
  if (bytes.empty()) return history_.broken(fmt::format("{} is empty", place.path));
  const std::size_t at = place.offset + scheduler_.below(place.bytes);
  bytes[at] = static_cast<char>(bytes[at] ^ (1 << scheduler_.below(8)));
  files_->set_contents(place.path, bytes);
}

void SimMember::wipe(std::vector<Address> join) {
  class Ghost final : public Disk {
   public:
    explicit Ghost(DiskLog disk) : disk_(std::move(disk)) {}
    std::optional<Term> durable_term(Index index) const override { return disk_.term_at(index); }
    std::pair<Term, Index> durable_end() const override { return {disk_.last_term(), disk_.last_index()}; }
    Result<DiskLog> read() const override { return disk_; }

   private:
    const DiskLog disk_;
  };
  ghosts_.push_back(std::make_unique<Ghost>(std::exchange(disk_, {})));
  oracle_.add(std::exchange(id_, {}), *ghosts_.back());
  options_.found = false;
  options_.join = std::move(join);
  std::filesystem::remove_all(options_.directory);
  make_directories();
}

Result<DiskLog> SimMember::read() const {
  return read_disk_log(*files_, log_directory());
}

/// A snapshot is in force, and the log does not begin anew after it yet. It counts as durable: if power were lost now,
/// a start would begin the log anew after it before anything else. No state is ahead of its log for any other reason.
std::optional<state::Checkpoint> SimMember::ahead() const {
  const Index applied = running_->started->store->applied_index();
  if (applied <= running_->started->log->last_index()) return std::nullopt;
  state::Checkpoint checkpoint = running_->started->store->last_checkpoint();
  if (checkpoint.installed && checkpoint.index == applied) return checkpoint;
  history_.broken(fmt::format("{} applied {}, and its log ends at {}", host(), applied.value,
                              running_->started->log->last_index().value));
  return std::nullopt;
}

std::optional<Term> SimMember::durable_term(Index index) const {
  if (!running()) return disk_.term_at(index);
  log::Log& log = *running_->started->log;
  if (const auto term = log.term_at(index)) return *term;
  if (index > log.last_index()) return std::nullopt;
  const auto disk = read();  // it failed, but what is durable stays so
  return disk ? disk->term_at(index) : std::nullopt;
}

std::pair<Term, Index> SimMember::durable_end() const {
  if (!running()) return {disk_.last_term(), disk_.last_index()};
  if (const auto mark = ahead()) return {mark->term, mark->index};
  const log::Log& log = *running_->started->log;
  const Index last = log.last_index();
  // A log that was begun anew knows the term before it, and does not say.
  const auto term = last < log.first_index() ? core().term_at(last) : durable_term(last);
  return {term.value_or(Term{}), last};
}

void SimMember::pause(Duration until) {
  scheduler_.pause(&running_->threads->loop, until);
  scheduler_.pause(&running_->threads->log_loop, until);
  scheduler_.pause(&running_->threads->apply_loop, until);
  scheduler_.pause(&running_->threads->bulk_loop, until);
  scheduler_.pause(&running_->threads->checkpoint_loop, until);
}

void SimMember::pause_disk(Duration until) {
  scheduler_.pause(&running_->threads->log_loop, until);
}
void SimMember::pause_apply(Duration until) {
  scheduler_.pause(&running_->threads->apply_loop, until);
}
void SimMember::pause_copies(Duration until) {
  scheduler_.pause(&running_->threads->bulk_loop, until);
}

void SimMember::append(const std::string& key, bool fails, Duration timeout) {
  const std::uint64_t id = history_.ask(session(), key, fails);
  const std::string number = std::to_string(id);
  const std::string_view args[] = {key, number};
  const std::string_view name = fails ? "append_and_fail" : "append";
  node::Done done(Completion([this, id](Result<Bytes> result) { history_.answer(id, std::move(result)); }));
  const auto ticket = running_->calls.begin(state::encoded_command_bytes(name, args), done);
  if (!ticket) return done(fail(ticket.error()));
  running_->node->submit({.sequence = ticket->id.sequence,
                          .payload = state::encode_command(ticket->id, ticket->acknowledged_below, name, args),
                          .deadline = running_->threads->loop.now() + timeout});
}

void SimMember::observe(const std::string& key, std::uint64_t read) {
  auto txn = running_->started->store->read();
  if (!txn) return history_.broken("a local read failed: " + txn.error().message());
  history_.saw(read, length_of(txn->table(table).get(key)), txn->index());
}

void SimMember::read_local(const std::string& key) {
  observe(key, history_.ask_read(session(), key, History::ReadKind::local));
}

void SimMember::read_linearizable(const std::string& key, Duration timeout) {
  const std::uint64_t read = history_.ask_read(session(), key, History::ReadKind::linearizable);
  running_->node->submit(node::Reads::Barrier{running_->threads->loop.now() + timeout,
                                              [this, key, read](Result<Index> reached) {
                                                if (reached) observe(key, read);
                                              },
                                              Index{}});
}

void SimMember::change(node::Change change, Duration timeout) {
  running_->node->submit(
      node::Changes::Request{std::move(change), running_->threads->loop.now() + timeout, [](const Result<void>&) {}});
}

void SimMember::compact(std::function<void()> done) {
  running_->node->submit(node::Compaction::Done([done = std::move(done)](const Result<void>& result) {
    if (result) done();
  }));
}

std::pair<std::uint64_t, Index> SimMember::content() {
  auto txn = running_->started->store->read();
  if (!txn) return {0, Index{}};
  return {state::Store::content_hash(*txn).value_or(0), txn->index()};
}

}  // namespace flotilla::sim
