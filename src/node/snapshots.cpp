#include "node/snapshots.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "base/codec.hpp"
#include "base/log_sink.hpp"

namespace flotilla::node {
namespace {

constexpr std::uint8_t begin_frame = 1;
constexpr std::uint8_t chunk_frame = 2;
constexpr std::uint8_t answer_frame = 3;
constexpr std::size_t chunk_bytes = 256u << 10;
constexpr std::uint64_t window_bytes = 8 * chunk_bytes;
constexpr std::size_t frame_slack_bytes = 4096;
/// Without a sign of progress for so long a transfer is given up; making the copy does not count. A copy is kept so
/// long for the next who asks, and a received snapshot for the core to want it.
constexpr Duration patience = std::chrono::seconds(60);
/// After a failure, doubled with each in a row up to half a minute.
constexpr Duration first_wait = std::chrono::seconds(1);
constexpr unsigned wait_doublings_max = 6;

net::Frame to_frame(std::uint8_t type, std::string head, std::string bytes = {}) {
  net::Frame frame{.type = type, .parts = {}};
  frame.parts.emplace_back(std::move(head));
  if (!bytes.empty()) frame.parts.emplace_back(std::move(bytes));
  return frame;
}

net::FrameLimits limits() {
  net::FrameLimits limits;
  limits.frame_bytes_max = chunk_bytes + frame_slack_bytes;
  limits.unsent_bytes_max = 2 * window_bytes;
  return limits;
}

}  // namespace

raft::SnapshotMeta meta_of(const state::Applied& applied) {
  return {applied.index, applied.term, applied.configuration, applied.configuration_index, applied.time};
}

// ---- sending ----

struct SnapshotSender::Transfer {
  Member peer;
  Term term;
  Index log_begins;
  Index first_needed;
  Duration due{};  ///< not before
  std::unique_ptr<net::Link> link;
  bool up = false;
  Copy copy;                  ///< none: it is being made
  std::uint64_t read = 0;     ///< asked of the bulk thread
  std::uint64_t written = 0;  ///< as the receiver says
  bool sent = false;
  Duration progress_at{};
};

SnapshotSender::SnapshotSender(Loop& loop, Executor& bulk, net::Transport& transport, state::Store& store,
                               const state::Directory& directory, Options options, Events events)
    : loop_(loop),
      bulk_(bulk),
      transport_(transport),
      store_(store),
      directory_(directory),
      options_(std::move(options)),
      events_(std::move(events)) {}

SnapshotSender::~SnapshotSender() = default;

void SnapshotSender::send(const Member& peer, Term term, Index log_begins) {
  auto transfer = std::make_shared<Transfer>();
  transfer->peer = peer;
  transfer->term = term;
  transfer->log_begins = log_begins;
  transfer->first_needed = store_.applied_index();
  const auto failures = failures_.find(peer.id);
  const unsigned doublings = failures == failures_.end() ? 0 : std::min(failures->second, wait_doublings_max);
  transfer->due = loop_.now() + (doublings == 0 ? Duration(0) : first_wait * (1u << (doublings - 1)));
  auto& place = transfers_[peer.id];
  if (place) let_go(std::move(place));
  place = transfer;
  if (doublings == 0) connect(transfer);
}

/// Before the copy is made: whoever cannot be reached costs none.
void SnapshotSender::connect(const std::shared_ptr<Transfer>& transfer) {
  transfer->progress_at = loop_.now();
  const std::weak_ptr<Transfer> weak = transfer;
  net::Link::Options options{.tag = net::snapshot_tag,
                             .address = transfer->peer.address,
                             .local = options_.local,
                             .expected = transfer->peer.id,
                             .limits = limits(),
                             .seed = options_.seed ^ transfer->peer.id.value,
                             .log_sink = options_.log_sink};
  net::Link::Events events{.up =
                               [this, weak](const net::Hello&) {
                                 if (const auto up = weak.lock()) connected(up);
                               },
                           .frame =
                               [this, weak](net::ReceivedFrame frame) {
                                 if (const auto from = weak.lock()) receive(from, frame);
                               },
                           .down =
                               [this, weak](const Error& error) {
                                 const auto down = weak.lock();
                                 if (down && !down->sent) end(down->peer.id, error.message());
                               }};
  transfer->link = std::make_unique<net::Link>(loop_, transport_, std::move(options), std::move(events));
}

void SnapshotSender::connected(const std::shared_ptr<Transfer>& transfer) {
  transfer->up = true;
  transfer->progress_at = loop_.now();
  if (newest_ && newest_->applied().index >= transfer->log_begins) {
    transfer->copy = newest_;
    return begin(*transfer);
  }
  if (!copying_) make_copy();
}

void SnapshotSender::make_copy() {
  copying_ = true;
  keep(nullptr);  // its room is needed
  bulk_.post([this, path = directory_.outgoing(++copies_), reserve = options_.reserve_bytes,
              alive = std::weak_ptr(alive_), &loop = loop_, &store = store_] {
    if (alive.expired()) return;  // do not let the end of the member wait for it
    Result<Copy> copy = store.copy(path, reserve).map([](state::SnapshotCopy&& made) {
      return Copy(std::make_shared<const state::SnapshotCopy>(std::move(made)));
    });
    loop.post([this, alive, copy = std::move(copy)]() mutable {
      if (!alive.expired()) copied(std::move(copy));
    });
  });
}

void SnapshotSender::copied(Result<Copy> copy) {
  copying_ = false;
  std::vector<std::shared_ptr<Transfer>> waiting;
  for (const auto& [peer, transfer] : transfers_) {
    if (transfer->up && !transfer->copy) waiting.push_back(transfer);
  }
  if (copy) keep(*copy);
  for (const auto& transfer : waiting) {
    if (!copy) {
      end(transfer->peer.id, copy.error().message());
    } else {
      transfer->copy = *copy;
      begin(*transfer);
    }
  }
}

void SnapshotSender::begin(Transfer& transfer) {
  const state::SnapshotCopy& copy = *transfer.copy;
  transfer.progress_at = newest_used_at_ = loop_.now();
  transfer.first_needed = copy.applied().index;
  log_line(options_.log_sink, LogLevel::info, "sending node {:x} a snapshot as of {}, {} bytes", transfer.peer.id.value,
           copy.applied().index.value, copy.bytes());
  std::string body;
  Encoder(body)
      .u64(transfer.term.value)
      .u64(copy.applied().index.value)
      .u64(copy.applied().term.value)
      .u64(copy.bytes())
      .u64(copy.hash().high)
      .u64(copy.hash().low);
  transfer.link->send(to_frame(begin_frame, std::move(body)));
}

void SnapshotSender::receive(const std::shared_ptr<Transfer>& transfer, const net::ReceivedFrame& frame) {
  Decoder in(frame.body.view());
  const std::uint8_t state = in.u8();
  const std::uint64_t written = in.u64();
  const std::string message(in.bytes());
  const NodeId peer = transfer->peer.id;
  if (transfer->sent) return;
  if (!transfer->copy) return end(peer, "its answer is malformed");
  if (frame.type != answer_frame || !in.done() || state > 2 || written > transfer->read ||
      written < transfer->written) {
    return end(peer, "its answer is malformed");
  }
  if (state == 2) return end(peer, message);
  transfer->written = written;
  transfer->progress_at = loop_.now();
  if (state == 0) return pump(transfer);
  if (written != transfer->copy->bytes()) return end(peer, "its answer is malformed");
  transfer->sent = true;
  failures_.erase(peer);
  loop_.post([link = std::move(transfer->link)]() mutable { link.reset(); });  // it is calling
  events_.sent(peer, meta_of(transfer->copy->applied()));
}

void SnapshotSender::pump(const std::shared_ptr<Transfer>& transfer) {
  const std::uint64_t bytes = transfer->copy->bytes();
  while (transfer->read < bytes && transfer->read - transfer->written < window_bytes) {
    const std::uint64_t offset = transfer->read;
    transfer->read = std::min(bytes, offset + chunk_bytes);
    bulk_.post([this, offset, copy = transfer->copy, weak = std::weak_ptr(transfer), alive = std::weak_ptr(alive_),
                &loop = loop_] {
      auto read = copy->read(offset, chunk_bytes);
      loop.post([this, offset, weak, alive, read = std::move(read)]() mutable {
        const auto target = alive.expired() ? nullptr : weak.lock();
        if (target) send_chunk(*target, offset, std::move(read));
      });
    });
  }
}

void SnapshotSender::send_chunk(Transfer& transfer, std::uint64_t offset, Result<std::string> bytes) {
  const NodeId peer = transfer.peer.id;
  if (!bytes) return end(peer, bytes.error().message());
  if (bytes->empty()) return end(peer, "the copy is shorter than it was");
  std::string head;
  Encoder(head).u64(offset);
  if (!transfer.link->send(to_frame(chunk_frame, std::move(head), std::move(*bytes)))) {
    end(peer, "the connection is full or gone");
  }
}

void SnapshotSender::end(NodeId peer, const std::string& why) {
  const auto at = transfers_.find(peer);
  if (at == transfers_.end()) return;
  log_line(options_.log_sink, LogLevel::warning, "the snapshot for node {:x} failed: {}", peer.value, why);
  const Transfer& ended = *at->second;
  const bool installed = ended.sent && ended.first_needed > ended.copy->applied().index;
  let_go(std::move(at->second));
  transfers_.erase(at);
  if (installed) return;
  ++failures_[peer];
  events_.failed(peer);
}

void SnapshotSender::end_all(const std::string& why) {
  while (!transfers_.empty()) end(transfers_.begin()->first, why);
}

/// Its link may be calling, so it goes a turn later; and to let go of a large file takes a while.
void SnapshotSender::let_go(std::shared_ptr<Transfer> transfer) {
  loop_.post([transfer = std::move(transfer), &bulk = bulk_]() mutable {
    bulk.post([copy = std::move(transfer->copy)]() mutable { copy.reset(); });
    transfer.reset();
  });
}

void SnapshotSender::keep(Copy copy) {
  bulk_.post([before = std::exchange(newest_, std::move(copy))]() mutable { before.reset(); });
  newest_used_at_ = loop_.now();
}

void SnapshotSender::tick(const std::function<std::optional<Peer>(NodeId)>& peer_of) {
  std::vector<NodeId> late;
  const Duration now = loop_.now();
  for (auto at = transfers_.begin(); at != transfers_.end();) {
    Transfer& transfer = *at->second;
    const auto peer = peer_of(at->first);
    if (!peer || !(peer->needs_snapshot || (transfer.sent && peer->lags))) {
      let_go(std::move(at->second));
      at = transfers_.erase(at);
      continue;
    }
    if (transfer.sent && peer->matched > transfer.first_needed) {
      transfer.first_needed = peer->matched;
      transfer.progress_at = now;
    }
    if (!transfer.link && !transfer.sent && now >= transfer.due) connect(at->second);
    const bool copying = transfer.up && !transfer.copy;
    if (now >= transfer.due && !copying && now - transfer.progress_at > patience) late.push_back(at->first);
    ++at;
  }
  for (const NodeId id : late) end(id, "no progress for a minute");
  std::erase_if(failures_, [&](const auto& failed) { return !peer_of(failed.first); });
  if (newest_ && transfers_.empty() && now - newest_used_at_ > patience) keep(nullptr);
}

std::optional<Index> SnapshotSender::first_needed() const {
  std::optional<Index> first;
  for (const auto& [peer, transfer] : transfers_) {
    first = first ? std::min(*first, transfer->first_needed) : transfer->first_needed;
  }
  return first;
}

// ---- receiving ----

struct SnapshotReceiver::Arriving {
  ConnectionId connection = 0;
  Term term;  ///< of the sender
  Index index;
  Term index_term;
  state::SnapshotWriter::Options wanted;
  std::uint64_t received = 0;                   ///< on the loop
  std::uint64_t written = 0;                    ///< on the loop: as far as was answered
  std::optional<state::SnapshotWriter> writer;  ///< bulk thread
};

SnapshotReceiver::SnapshotReceiver(Loop& loop, Executor& bulk, net::Mux& mux, const state::Directory& directory,
                                   Options options, Ask ask)
    : loop_(loop),
      bulk_(bulk),
      directory_(directory),
      options_(std::move(options)),
      ask_(std::move(ask)),
      server_(loop, mux,
              {.tag = net::snapshot_tag, .local = options_.local, .limits = limits(), .log_sink = options_.log_sink},
              {.up = [this](auto connection, const net::Hello& hello) -> Result<void> {
                 senders_[connection] = hello.node_id;
                 return {};
               },
               .frame = [this](auto connection, net::ReceivedFrame frame) { receive(connection, std::move(frame)); },
               .down =
                   [this](auto connection, const Error&) {
                     senders_.erase(connection);
                     if (arriving_ && arriving_->connection == connection) abandon();
                   }}) {}

SnapshotReceiver::~SnapshotReceiver() = default;

void SnapshotReceiver::receive(ConnectionId connection, net::ReceivedFrame frame) {
  if (frame.type == begin_frame) return begin(connection, frame.body.view());
  if (frame.type == chunk_frame) return take_chunk(connection, frame);
  server_.drop(connection);
}

void SnapshotReceiver::begin(ConnectionId connection, std::string_view body) {
  Decoder in(body);
  const Term term{in.u64()};
  const Index index{in.u64()};
  const Term index_term{in.u64()};
  auto arriving = std::make_shared<Arriving>();
  arriving->connection = connection;
  arriving->term = term;
  arriving->wanted.bytes = in.u64();
  arriving->wanted.hash.high = in.u64();
  arriving->wanted.hash.low = in.u64();
  arriving->index = index;
  arriving->index_term = index_term;
  const bool again = arriving_ && arriving_->connection == connection;
  if (!in.done() || !index || !index_term || arriving->wanted.bytes == 0 || again) {
    if (again) abandon();
    return server_.drop(connection);
  }
  if (taken_) return refuse(connection, "another snapshot is being installed");
  if (term < ask_.term() || (arriving_ && term < arriving_->term)) {
    return refuse(connection, "a newer leader is known");
  }
  if (!ask_.may_be_leader(senders_[connection])) return refuse(connection, "the sender does not lead");
  if (arriving->wanted.bytes > options_.bytes_max) {
    return refuse(connection, fmt::format("it has {} bytes, and Options::map_size here is {}", arriving->wanted.bytes,
                                          options_.bytes_max));
  }
  if (arriving_) server_.drop(std::exchange(arriving_, nullptr)->connection);
  log_line(options_.log_sink, LogLevel::info, "receiving a snapshot as of {}, {} bytes", index.value,
           arriving->wanted.bytes);
  arriving->wanted.directory = directory_.incoming();
  arriving->wanted.sync = options_.sync;
  arriving->wanted.reserve_bytes = options_.reserve_bytes;
  complete_.reset();
  arriving_ = arriving;
  bulk_.post([this, arriving, alive = std::weak_ptr(alive_), &loop = loop_] {
    auto writer = state::SnapshotWriter::create(arriving->wanted);
    if (writer) arriving->writer.emplace(std::move(*writer));
    loop.post([this, arriving, alive, created = std::move(writer).map([](auto&&) { return std::uint64_t{0}; })] {
      if (!alive.expired()) written(arriving, created);
    });
  });
}

void SnapshotReceiver::take_chunk(ConnectionId connection, const net::ReceivedFrame& frame) {
  if (!arriving_ || arriving_->connection != connection) return server_.drop(connection);
  constexpr std::size_t head_bytes = 8;
  Decoder in(frame.body.view());
  const std::uint64_t offset = in.u64();
  const std::size_t bytes = in.remaining();
  const bool fits = in.ok() && bytes > 0 && bytes <= chunk_bytes && offset == arriving_->received &&
                    bytes <= arriving_->wanted.bytes - offset &&
                    offset + bytes - arriving_->written <= window_bytes;  // more than was answered for
  if (!fits) {
    abandon();
    return server_.drop(connection);
  }
  arriving_->received += bytes;
  bulk_.post([this, arriving = arriving_, chunk = frame.body, alive = std::weak_ptr(alive_), &loop = loop_] {
    if (!arriving->writer) return;  // it could not be made; the loop hears of it
    Result<std::uint64_t> done = arriving->writer->write(chunk.view().substr(head_bytes)).map([&arriving] {
      return arriving->writer->written();
    });
    loop.post([this, arriving, alive, done = std::move(done)] {
      if (!alive.expired()) written(arriving, done);
    });
  });
}

void SnapshotReceiver::written(const std::shared_ptr<Arriving>& arriving, Result<std::uint64_t> written) {
  if (arriving != arriving_) return;
  if (!written) {
    log_line(options_.log_sink, LogLevel::warning, "receiving a snapshot failed: {}", written.error().message());
    abandon();
    return refuse(arriving->connection, written.error().message());
  }
  arriving->written = *written;
  if (*written == arriving->wanted.bytes) return finish(arriving);
  answer(arriving->connection, State::going_on, *written, {});
}

void SnapshotReceiver::finish(const std::shared_ptr<Arriving>& arriving) {
  bulk_.post([this, arriving, alive = std::weak_ptr(alive_), &loop = loop_] {
    auto applied = arriving->writer->finish();
    arriving->writer.reset();
    loop.post([this, arriving, alive, applied = std::move(applied)]() mutable {
      if (!alive.expired()) finished(arriving, std::move(applied));
    });
  });
}

void SnapshotReceiver::finished(const std::shared_ptr<Arriving>& arriving, Result<state::Applied> applied) {
  if (arriving != arriving_) return;
  if (applied && (applied->index != arriving->index || applied->term != arriving->index_term)) {
    applied = fail(Errc::damaged, "the snapshot is of another moment than announced");
  }
  arriving_.reset();
  if (!applied) {
    remove_files();
    log_line(options_.log_sink, LogLevel::warning, "a snapshot is refused: {}", applied.error().message());
    return refuse(arriving->connection, applied.error().message());
  }
  complete_ = Complete{std::move(*applied), loop_.now()};
  answer(arriving->connection, State::complete, arriving->wanted.bytes, {});
}

void SnapshotReceiver::answer(ConnectionId connection, State state, std::uint64_t written, std::string_view message) {
  std::string body;
  Encoder(body).u8(static_cast<std::uint8_t>(state)).u64(written).bytes(message);
  if (!server_.send(connection, to_frame(answer_frame, std::move(body)))) server_.drop(connection);
}

void SnapshotReceiver::refuse(ConnectionId connection, std::string_view message) {
  answer(connection, State::refused, 0, message);
}

void SnapshotReceiver::abandon() {
  arriving_.reset();
  remove_files();
}

/// After what the bulk thread still does with them, and before whatever comes next.
void SnapshotReceiver::remove_files() {
  bulk_.post([directory = directory_.incoming()] {
    std::error_code ignored;
    std::filesystem::remove_all(directory, ignored);
  });
}

std::optional<state::Applied> SnapshotReceiver::take(Index index) {
  if (!complete_ || complete_->applied.index < index) return std::nullopt;
  taken_ = true;
  state::Applied applied = std::move(complete_->applied);
  complete_.reset();
  return applied;
}

void SnapshotReceiver::tick() {
  if (!complete_ || loop_.now() - complete_->at <= patience) return;
  complete_.reset();
  remove_files();
}

}  // namespace flotilla::node
