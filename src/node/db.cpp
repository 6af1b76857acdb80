// Behind the public DB: owns the threads, opens in one order and closes in the reverse one.
#include "flotilla/db.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "base/fork.hpp"
#include "base/log_sink.hpp"
#include "net/port.hpp"
#include "node/node.hpp"
#include "node/start.hpp"
#include "node/thread_executor.hpp"

namespace flotilla {
namespace {

using namespace std::chrono_literals;

std::uint64_t random_bits() {
  std::random_device device;
  return (std::uint64_t{device()} << 32) | device();
}

std::uint64_t wall_clock() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(now).count());
}

std::string_view host_of(std::string_view address) {
  const std::size_t colon = address.rfind(':');
  return colon == std::string_view::npos ? address : address.substr(0, colon);
}

bool is_loopback(std::string_view address) {
  const std::string_view host = host_of(address);
  const bool numeric = host.find_first_not_of("0123456789.") == std::string_view::npos;
  return host == "localhost" || host == "[::1]" || (numeric && host.starts_with("127."));
}

Result<void> check_addresses(const Options& options) {
  if (options.plain_text) return {};
  std::vector<Address> addresses = options.join;
  addresses.push_back(options.listen);
  addresses.push_back(options.advertise);
  for (const Address& address : addresses) {
    if (address.empty() || is_loopback(address)) continue;
    return fail(
        Errc::invalid_argument,
        fmt::format("{} is not a loopback address, and nothing yet proves who a peer is: set Options::plain_text "
                    "only on a network where every host is trusted",
                    address));
  }
  return {};
}

Result<void> check(const Options& options) {
  const auto invalid = [](std::string what) { return fail(Errc::invalid_argument, std::move(what)); };
  if (options.data_dir.empty()) return invalid("Options::data_dir is not set");
  if (options.listen.empty() && !options.join.empty()) return invalid("Options::join needs Options::listen");
  if (options.found && !options.join.empty()) return invalid("Options::found and Options::join exclude each other");
  if (options.entry_bytes_max < 64 || options.entry_bytes_max > (64u << 20)) {
    return invalid("Options::entry_bytes_max is outside 64 B to 64 MiB");
  }
  if (options.map_size < (1u << 20)) return invalid("Options::map_size is below 1 MiB");
  if (options.segment_bytes < (64u << 10)) return invalid("Options::segment_bytes is below 64 KiB");
  if (options.batch_entries_max == 0 || options.batch_bytes_max == 0) return invalid("Options::batch_*_max is 0");
  if (options.readers_max == 0) return invalid("Options::readers_max is 0");
  if (options.heartbeat_interval < 1ms || options.election_timeout < 3 * options.heartbeat_interval) {
    return invalid("Options::election_timeout is below 3 heartbeat intervals");
  }
  if (options.durability != Durability::every_commit && !options.listen.empty()) {
    return invalid(
        "Options::durability below every_commit is for a database without a port (Options::listen): a member of a "
        "cluster that loses what it acknowledged makes the others lose it");
  }
  if (options.durability == Durability::interval && options.sync_interval < 1ms) {
    return invalid("Options::sync_interval is below 1 ms");
  }
  return check_addresses(options);
}

#ifdef FLOTILLA_STOP_ON_BROKEN_INVARIANT
/// In a build for users a broken invariant stops the member whose thread met it, not the host.
struct InvariantBroken : std::logic_error {
  using std::logic_error::logic_error;
};
[[noreturn]] void stop_on_broken_invariant(const char* expression, const char* file, int line) {
  throw InvariantBroken(fmt::format("broken invariant: {} ({}:{})", expression, file, line));
}
#endif

}  // namespace

namespace detail {

class DbImpl {
 public:
  static Result<std::shared_ptr<DbImpl>> open(Options options, const Commands& commands) {
    options.log_sink = log_sink_or_default(std::move(options.log_sink));
    if (auto valid = check(options); !valid) return fail(valid.error());
    if (auto valid = commands.check(); !valid) return fail(valid.error());
    for (const std::string& name : commands.replaced()) {
      log_line(options.log_sink, LogLevel::warning, "command '{}' was registered twice; the last one is used", name);
    }
#ifdef FLOTILLA_STOP_ON_BROKEN_INVARIANT
    set_assert_handler(stop_on_broken_invariant);
#endif
    auto started = node::start({.files = log::posix_file_system(), .random = random_bits()}, options, commands);
    if (!started) return fail(started.error());
    if (options.listen.empty() && !node::alone(*started)) {
      return fail(Errc::invalid_argument, "this member belongs to a cluster: Options::listen is needed");
    }
    std::shared_ptr<DbImpl> impl(new DbImpl(std::move(options), std::move(*started)));
    if (auto running = impl->run(); !running) {
      static_cast<void>(impl->close());
      return fail(running.error());
    }
    return impl;
  }

  ~DbImpl() {
    if (forked()) {
      release_forked();
    } else {
      static_cast<void>(close());
    }
  }

  void command(std::string_view name, std::span<const std::string_view> args, node::Done done, CallOptions call) {
    if (auto refused = refuse(name, args)) return done(fail(std::move(*refused)));
    const std::size_t bytes = state::encoded_command_bytes(name, args);
    const Duration now = port_->loop().now();
    done.begun = now;
    const auto ticket = calls_.begin(bytes, done);
    if (!ticket) return done(fail(ticket.error()));
    try {
      node_->submit({.sequence = ticket->id.sequence,
                     .payload = state::encode_command(ticket->id, ticket->acknowledged_below, name, args),
                     .begun = now,
                     .deadline = deadline(call, now)});
    } catch (...) {  // no memory: the caller hears of it by the exception, and no call is left behind
      static_cast<void>(calls_.take(ticket->id.sequence));
      throw;
    }
  }

  void barrier(IndexCompletion done, CallOptions call, Index at_least = {}) {
    if (auto refused = refuse_any()) return done(fail(std::move(*refused)));
    if (barriers_.fetch_add(1) >= options_.pending_calls_max) {
      --barriers_;
      return done(fail(Error(Errc::overloaded)));
    }
    node_->submit(node::Reads::Barrier{deadline(call),
                                       [this, done = std::move(done)](Result<Index> result) {
                                         --barriers_;
                                         done(std::move(result));
                                       },
                                       at_least});
  }

  Result<ReadTxn> read_local() {
    if (forked()) return fail(Error(Errc::forked));
    if (state::inside_command()) return fail(inside_command_error());
    return started_.store->read();
  }

  Result<ReadTxn> read_after(Index at_least, CallOptions call) {
    if (would_block_itself()) return fail(Error(Errc::would_deadlock));
    std::promise<Result<Index>> promise;
    auto future = promise.get_future();
    barrier([&promise](Result<Index> result) { promise.set_value(std::move(result)); }, call, at_least);
    if (auto reached = future.get(); !reached) return fail(reached.error());
    return read_local();
  }

  std::future<Result<void>> change(node::Change change, CallOptions call) {
    return ask([&](auto done) {
      node_->submit(node::Changes::Request{std::move(change), deadline(call), std::move(done)});
    });
  }

  std::future<Result<void>> compact() {
    return ask([&](auto done) { node_->submit(node::Compaction::Done(std::move(done))); });
  }

  bool would_block_itself() const {
    return state::inside_command() || (port_ && port_->loop().is_current()) ||
           (apply_thread_ && apply_thread_->is_current()) || (log_thread_ && log_thread_->is_current());
  }

  Status status() const {
    if (forked()) return {};
    const std::lock_guard lock(last_mutex_);
    return last_ ? last_->status : node_->status();
  }
  Metrics metrics() const {
    if (forked()) return {};
    const std::lock_guard lock(last_mutex_);
    return last_ ? last_->metrics : node_->metrics();
  }
  bool is_leader() const {
    return !forked() && node_->is_leader();
  }
  std::optional<Member> leader() const {
    return forked() ? std::nullopt : node_->leader();
  }
  StreamMux& streams() {
    return *streams_;
  }
  bool forked() const {
    return flotilla::fork_generation() != fork_generation_;
  }

  Result<void> close() {
    if (forked()) return fail(Error(Errc::forked));
    if (would_block_itself()) return fail(Error(Errc::would_deadlock));
    const std::lock_guard closing(close_mutex_);
    if (std::exchange(closed_, true)) return {};
    hand_over();
    if (port_) {
      port_->run_and_wait([this] {
        if (node_) node_->stop(Error(Errc::shutting_down, "the database was closed; the command was not sent"));
      });
    }
    if (streams_) streams_->close();
    // A compaction's end goes from one to the next.
    if (bulk_thread_) bulk_thread_->stop();
    if (checkpoint_thread_) checkpoint_thread_->stop();
    if (apply_thread_) apply_thread_->stop();
    if (log_thread_) log_thread_->stop();
    if (port_) port_->stop();
    if (node_) node_->loop_ended();
    calls_.refuse_new(Error(Errc::shutting_down, "the database was closed; the command was not sent"));
    protect_log();
    Last last = node_ ? Last{node_->status(), node_->metrics()} : Last();
    take_last_checkpoint(last.status);
    const std::lock_guard lock(last_mutex_);
    last_ = std::move(last);
    started_.store->close();
    started_.log.reset();
    lock_.reset();
    return {};
  }

 private:
  DbImpl(Options options, node::Started started)
      : options_(std::move(options)),
        started_(std::move(started)),
        lock_(std::move(started_.lock)),
        command_names_(started_.store->command_names()),
        calls_(random_bits() | 1, {options_.pending_bytes_max, options_.pending_calls_max}) {}

  /// `submit` gets what makes the future ready; it is not called where waiting for that would never end.
  template <class Submit>
  std::future<Result<void>> ask(Submit submit) {
    auto promise = std::make_shared<std::promise<Result<void>>>();
    auto future = promise->get_future();
    if (forked()) {
      promise->set_value(fail(Error(Errc::forked)));
    } else if (would_block_itself()) {
      promise->set_value(fail(Error(Errc::would_deadlock)));
    } else {
      submit([promise](Result<void> result) { promise->set_value(std::move(result)); });
    }
    return future;
  }

  Result<void> run() {
    const auto failed = [this](const Error& error) { fail_stop(error); };
    port_ = net::Port::start({.unclassified_max = options_.unclassified_max,
                              .classify_timeout = options_.classify_timeout,
                              .connections_max = options_.connections_max,
                              .connections_per_address_max = options_.connections_per_address_max,
                              .log_sink = options_.log_sink},
                             failed);
    log_thread_ = std::make_unique<node::ThreadExecutor>("flotilla-log", failed);
    apply_thread_ = std::make_unique<node::ThreadExecutor>("flotilla-apply", failed);
    bulk_thread_ = std::make_unique<node::ThreadExecutor>("flotilla-bulk", failed);
    checkpoint_thread_ = std::make_unique<node::ThreadExecutor>("flotilla-ckpt", failed);
    streams_.emplace(net::make_stream_mux(port_, false, true));
    const Index committed = std::max(started_.restored.commit_index, started_.restored.applied_index);
    Result<void> listening;
    port_->run_and_wait([this, &listening] {
      if (!options_.listen.empty()) listening = port_->mux().listen(options_.listen);
      make_node();
      if (listening) node_->start();
    });
    if (!listening) return listening;
    if (!node_) port_->run_and_wait([] {});  // until what it threw is kept
    if (!node_) return fail(start_failure_.value_or(Error(Errc::stopped, "the member could not be made")));
    if (!committed) return {};
    // What the log says is committed is visible to the first read.
    std::promise<Result<Index>> applied;
    auto reached = applied.get_future();
    node_->submit(node::Reads::Barrier{
        Duration::max(), [&applied](Result<Index> result) { applied.set_value(std::move(result)); }, committed});
    if (auto result = reached.get(); !result) return fail(node_->status().fault.value_or(result.error()));
    return {};
  }

  void make_node() {
    node::NodeOptions node;
    node.cluster_id = started_.identity.cluster_id;
    node.node_id = started_.identity.node_id;
    node.incarnation = started_.identity.incarnation;
    if (!options_.listen.empty()) node.advertise = advertised();
    node.join = options_.join;
    node.join_as_learner = options_.join_as_learner;
    node.seed = random_bits();
    node.election_timeout = options_.election_timeout;
    node.heartbeat_interval = options_.heartbeat_interval;
    node.entry_bytes_max = options_.entry_bytes_max;
    node.batch = {options_.batch_entries_max, options_.batch_bytes_max};
    node.apply_interval = options_.apply_interval;
    node.checkpoints = {options_.checkpoint_log_bytes, options_.checkpoint_growth_bytes, options_.checkpoint_interval};
    if (options_.durability == Durability::interval) node.sync_interval = options_.sync_interval;
    if (options_.durability == Durability::os) node.sync_interval = Duration::max();
    node.trailing_entries = options_.trailing_entries;

    node.log_cache_bytes = options_.log_cache_bytes;
    node.log_bytes_max = options_.log_bytes_max;
    node.disk_reserve_bytes = options_.disk_reserve_bytes;
    node.space = {options_.data_dir, options_.disk_reserve_bytes, options_.state_bytes_max};

    node.snapshot_bytes_max = options_.map_size;
    node.log_sink = options_.log_sink;
    node.wall_clock = wall_clock;
    node.keep_cluster_id = [this](const ClusterId& id) {
      started_.identity.cluster_id = id;
      return log::write_identity(log::posix_file_system(), node::identity_path(options_.data_dir), started_.identity);
    };
    node_ = std::make_unique<node::Node>(node::Node::Parts{port_->loop(), *log_thread_, *apply_thread_, *bulk_thread_,
                                                           *checkpoint_thread_, port_->transport(), port_->mux(),
                                                           *started_.log, *started_.store, *started_.directory, calls_},
                                         std::move(node), std::move(started_.restored));
  }

  /// The others get their next leader at once instead of after an election timeout.
  void hand_over() {
    if (!node_ || !node_->is_leader() || options_.listen.empty()) return;
    auto over = change(node::Change::transfer(std::nullopt), {.timeout = options_.election_timeout});
    static_cast<void>(over.wait_for(2 * options_.election_timeout));
  }

  /// The port may have been chosen by the system.
  Address advertised() const {
    const Address bound = port_->mux().address();
    const std::string port = bound.empty() ? std::string() : bound.substr(bound.rfind(':'));
    const Address& wanted = options_.advertise.empty() ? options_.listen : options_.advertise;
    return wanted.ends_with(":0") && !port.empty() ? Address(host_of(wanted)) + port : wanted;
  }

  /// At once where it can be: after a broken invariant the loop must not take another step with what is left.
  void fail_stop(const Error& error) {
    if (port_ && port_->loop().is_current()) return fail_stop_here(error);
    port_->loop().post([this, error] { fail_stop_here(error); });
  }
  void fail_stop_here(const Error& error) {
    if (node_) {
      node_->fail_stop(error);
    } else {
      start_failure_ = error;
    }
  }

  /// The last group of an orderly end gets its empty block too; if it cannot, the next start finds a tail as after a
  /// crash.
  void protect_log() {
    if (!started_.log || (node_ && node_->status().fault)) return;
    const log::Log::Write nothing{std::nullopt, {}, started_.log->recovered().commit_index};
    static_cast<void>(started_.log->append({&nothing, 1}));
  }

  /// The next start has nothing to replay. If it cannot be, it replays.
  void take_last_checkpoint(const Status& last) {
    if (last.fault && *last.fault != Errc::removed) return;
    if (!started_.log || !started_.log->sync()) return;  // it would be ahead of the log
    if (started_.store->last_checkpoint().index == started_.store->applied_index()) return;
    if (auto done = started_.store->checkpoint(); !done) {
      log_line(options_.log_sink, LogLevel::warning, "no checkpoint at the end, the next start replays the log: {}",
               done.error().message());
    }
  }

  Duration deadline(CallOptions call) const {
    return deadline(call, port_->loop().now());
  }
  Duration deadline(CallOptions call, Duration now) const {
    constexpr std::chrono::milliseconds longest = std::chrono::hours(24 * 365);
    return now + std::clamp(call.timeout.value_or(options_.command_timeout), 0ms, longest);
  }

  static Error inside_command_error() {
    return Error(Errc::would_deadlock, "a command must not call into the database: it has its transaction");
  }

  std::optional<Error> refuse_any() const {
    if (forked()) return Error(Errc::forked);
    if (state::inside_command()) return inside_command_error();
    return std::nullopt;
  }

  std::optional<Error> refuse(std::string_view name, std::span<const std::string_view> args) const {
    if (auto refused = refuse_any()) return refused;
    if (!std::binary_search(command_names_.begin(), command_names_.end(), name)) {
      return Error(Errc::unknown_command, fmt::format("no command '{}' is registered; nothing was sent", name));
    }
    if (args.size() > state::args_max) {
      return Error(Errc::invalid_argument,
                   fmt::format("{} arguments, a command may have {}; nothing was sent", args.size(), state::args_max));
    }
    if (state::encoded_command_bytes(name, args) > options_.entry_bytes_max) {
      return Error(Errc::entry_too_large,
                   fmt::format("the command has {} bytes, Options::entry_bytes_max is {}; nothing was sent",
                               state::encoded_command_bytes(name, args), options_.entry_bytes_max));
    }
    return std::nullopt;
  }

  /// In a forked child there are no threads to join, and the files belong to the parent: forget everything.
  void release_forked() {
    static_cast<void>(node_.release());
    static_cast<void>(log_thread_.release());
    static_cast<void>(apply_thread_.release());
    static_cast<void>(bulk_thread_.release());
    static_cast<void>(checkpoint_thread_.release());
    static_cast<void>(started_.store.release());
    static_cast<void>(started_.log.release());
    static_cast<void>(new std::shared_ptr<net::Port>(std::move(port_)));
    static_cast<void>(new std::optional<StreamMux>(std::move(streams_)));
    streams_.reset();
  }

  const std::uint64_t fork_generation_ = flotilla::fork_generation();
  Options options_;
  node::Started started_;
  std::optional<node::DirectoryLock> lock_;
  const std::vector<std::string> command_names_;  // sorted
  node::Calls calls_;
  std::shared_ptr<net::Port> port_;
  std::unique_ptr<node::ThreadExecutor> log_thread_;
  std::unique_ptr<node::ThreadExecutor> apply_thread_;
  std::unique_ptr<node::ThreadExecutor> bulk_thread_;
  std::unique_ptr<node::ThreadExecutor> checkpoint_thread_;
  std::unique_ptr<node::Node> node_;
  std::optional<StreamMux> streams_;
  std::optional<Error> start_failure_;  // loop
  std::atomic<std::size_t> barriers_ = 0;
  std::mutex close_mutex_;
  bool closed_ = false;  // guarded by close_mutex_
  struct Last {
    Status status;
    Metrics metrics;
  };
  mutable std::mutex last_mutex_;  // close() against status() and metrics()
  std::optional<Last> last_;       // guarded by last_mutex_; once closed
};

}  // namespace detail

Result<DB> DB::open(const Options& options, const Commands& commands) {
  try {
    auto impl = detail::DbImpl::open(options, commands);
    if (!impl) return fail(impl.error());
    return DB(std::move(*impl));
  } catch (const std::exception& thrown) {  // no memory, no more threads
    return fail(Errc::io_error, std::string("the database could not be opened: ") + thrown.what());
  }
}

DB::DB(std::shared_ptr<detail::DbImpl> impl) : impl_(std::move(impl)) {}
DB::DB(DB&&) noexcept = default;
DB& DB::operator=(DB&& other) noexcept {
  if (this != &other) {
    const DB old(std::move(*this));  // ends as ~DB ends it
    impl_ = std::move(other.impl_);
  }
  return *this;
}

DB::~DB() {
  if (!impl_ || impl_->forked() || !impl_->would_block_itself()) return;
  // Destroyed on one of the database's own threads, which closing has to join: another thread does it.
  std::thread([impl = std::move(impl_)]() mutable { impl.reset(); }).detach();
}

std::future<Result<Bytes>> DB::command(std::string_view name, std::initializer_list<std::string_view> args,
                                       CallOptions call) {
  return command(name, std::span(args.begin(), args.size()), call);
}

std::future<Result<Bytes>> DB::command(std::string_view name, std::span<const std::string_view> args,
                                       CallOptions call) {
  std::promise<Result<Bytes>> promise;
  auto future = promise.get_future();
  if (!impl_->forked() && impl_->would_block_itself()) {
    promise.set_value(
        fail(Errc::would_deadlock,
             "waiting for this future here would stop the thread that answers it; use the completion form"));
  } else {
    impl_->command(name, args, node::Done(std::move(promise)), call);
  }
  return future;
}

void DB::command(std::string_view name, std::initializer_list<std::string_view> args, Completion done,
                 CallOptions call) {
  command(name, std::span(args.begin(), args.size()), std::move(done), call);
}

void DB::command(std::string_view name, std::span<const std::string_view> args, Completion done, CallOptions call) {
  impl_->command(name, args, node::Done(std::move(done)), call);
}

Result<ReadTxn> DB::read(Consistency consistency, CallOptions call) {
  return consistency == Consistency::local ? impl_->read_local() : impl_->read_after(Index{}, call);
}

Result<ReadTxn> DB::read(Index at_least, CallOptions call) {
  return at_least ? impl_->read_after(at_least, call) : impl_->read_local();
}

std::future<Result<Index>> DB::barrier(CallOptions call) {
  auto promise = std::make_shared<std::promise<Result<Index>>>();
  auto future = promise->get_future();
  if (!impl_->forked() && impl_->would_block_itself()) {
    promise->set_value(fail(Error(Errc::would_deadlock)));
  } else {
    impl_->barrier([promise](Result<Index> result) { promise->set_value(std::move(result)); }, call);
  }
  return future;
}

void DB::barrier(IndexCompletion done, CallOptions call) {
  impl_->barrier(std::move(done), call);
}

std::future<Result<void>> DB::add_learner(NodeId id, Address address, CallOptions call) {
  return impl_->change(node::Change::add_learner(id, std::move(address)), call);
}
std::future<Result<void>> DB::promote(NodeId id, CallOptions call) {
  return impl_->change(node::Change::promote(id), call);
}
std::future<Result<void>> DB::remove(NodeId id, CallOptions call) {
  return impl_->change(node::Change::remove(id), call);
}
std::future<Result<void>> DB::replace(NodeId old, Member replacement, CallOptions call) {
  return impl_->change(node::Change::replace(old, std::move(replacement)), call);
}
std::future<Result<void>> DB::change_members(std::vector<Member> members, CallOptions call) {
  return impl_->change(node::Change::configure(std::move(members)), call);
}
std::future<Result<void>> DB::transfer_leadership(std::optional<NodeId> to, CallOptions call) {
  return impl_->change(node::Change::transfer(to), call);
}

std::future<Result<void>> DB::compact() {
  return impl_->compact();
}

Metrics DB::metrics() const {
  return impl_->metrics();
}

Status DB::status() const {
  return impl_->status();
}
bool DB::is_leader() const {
  return impl_->is_leader();
}
std::optional<Member> DB::leader() const {
  return impl_->leader();
}
StreamMux& DB::streams() {
  return impl_->streams();
}
Result<void> DB::close() {
  return impl_->close();
}

}  // namespace flotilla
