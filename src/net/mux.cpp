#include "net/mux.hpp"

#include <algorithm>
#include <list>
#include <unordered_map>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "base/log_sink.hpp"
#include "net/address.hpp"

namespace flotilla::net {
namespace {

constexpr Tag first_application_tag = 0x09;
constexpr Duration failure_log_interval = std::chrono::seconds(5);

/// What is open, shared with the connections that were handed out and may outlive the mux.
struct Census {
  unsigned open = 0;
  unsigned applications = 0;  // open and not a peer's
  std::unordered_map<std::string, unsigned> per_address;

  unsigned of(const std::string& host) const {
    const auto at = per_address.find(host);
    return at == per_address.end() ? 0 : at->second;
  }
};

/// A connection that is counted for as long as it lives.
class Counted final : public Connection {
 public:
  Counted(std::shared_ptr<Census> census, std::unique_ptr<Connection> connection, std::string host)
      : census_(std::move(census)), connection_(std::move(connection)), host_(std::move(host)) {
    ++census_->open;
    ++census_->per_address[host_];
  }
  ~Counted() override {
    --census_->open;
    if (application_) --census_->applications;
    const auto at = census_->per_address.find(host_);
    if (--at->second == 0) census_->per_address.erase(at);
  }
  void count_as_application() {
    application_ = true;
    ++census_->applications;
  }
  const std::string& host() const { return host_; }

  void start(ConnectionHandler& handler) override { connection_->start(handler); }
  void pause() override { connection_->pause(); }
  void resume() override { connection_->resume(); }
  void send(std::vector<SharedBytes> parts) override { connection_->send(std::move(parts)); }
  std::size_t unsent_bytes() const override { return connection_->unsent_bytes(); }
  void finish() override { connection_->finish(); }
  Address remote() const override { return connection_->remote(); }

 private:
  const std::shared_ptr<Census> census_;
  const std::unique_ptr<Connection> connection_;
  const std::string host_;
  bool application_ = false;
};

struct Service {
  ServiceHandler handler;
  bool peeked = false;
};

}  // namespace

class Mux::Impl {
 public:
  Impl(Loop& the_loop, Transport& the_transport, MuxOptions the_options)
      : loop(the_loop), transport(the_transport), options(std::move(the_options)) {}
  ~Impl() { close(); }

  Result<void> claim(std::string_view first_bytes, const ServiceHandler& handler, bool peeked);
  void close();

  Loop& loop;
  Transport& transport;
  const MuxOptions options;
  StreamMuxStats stats;
  const std::shared_ptr<Census> census = std::make_shared<Census>();
  std::array<std::shared_ptr<const Service>, 256> services;
  std::unique_ptr<Listener> listener;

  void accepted(std::unique_ptr<Connection> connection);
  void accept_failed(const Error& error);

 private:
  /// A connection that has not said yet what it is.
  class Unclassified;
  using Waiting = std::list<Unclassified>;

  class Unclassified final : public ConnectionHandler {
   public:
    Unclassified(Impl& owner, std::unique_ptr<Counted> counted) : mux(owner), connection(std::move(counted)) {}
    void on_data(std::string_view bytes) override { mux.classify(self, bytes); }
    void on_end() override { mux.waiting_.erase(self); }
    void on_closed(const Error&) override { mux.waiting_.erase(self); }

    Impl& mux;
    std::unique_ptr<Counted> connection;
    Duration deadline{};
    Waiting::iterator self;
  };

  bool make_room(const std::string& host);
  void classify(Waiting::iterator which, std::string_view bytes);
  void arm_deadline();
  void expire();

  Waiting waiting_;  // oldest first, so the deadlines are in order and one timer serves all
  Loop::TimerId timer_ = 0;
  Duration failure_logged_{};
};

void Mux::Impl::accept_failed(const Error& error) {
  ++stats.accept_errors;
  if (stats.accept_errors > 1 && loop.now() - failure_logged_ < failure_log_interval) return;
  failure_logged_ = loop.now();
  log_line(options.log_sink, LogLevel::warning, "port: {}; listening goes on", error.message());
}

void Mux::Impl::accepted(std::unique_ptr<Connection> connection) {
  ++stats.accepted;
  std::string host(host_of(connection->remote()));
  if (!make_room(host)) {
    ++stats.refused;
    return;
  }
  waiting_.emplace_back(*this, std::make_unique<Counted>(census, std::move(connection), std::move(host)));
  Unclassified& newest = waiting_.back();
  newest.self = std::prev(waiting_.end());
  newest.deadline = loop.now() + options.classify_timeout;
  newest.connection->start(newest);
  arm_deadline();
}

/// Over a cap, the connection that has been silent for longest goes: in a flood of silent ones, whoever says at once
/// what it is still gets through. False if nobody silent is in the way.
bool Mux::Impl::make_room(const std::string& host) {
  if (census->of(host) >= options.connections_per_address_max) {
    const auto silent = std::find_if(waiting_.begin(), waiting_.end(),
                                     [&](const Unclassified& one) { return one.connection->host() == host; });
    if (silent == waiting_.end()) return false;
    waiting_.erase(silent);
    ++stats.refused;
  }
  if (waiting_.size() < options.unclassified_max && census->open < options.connections_max) return true;
  if (waiting_.empty()) return false;
  waiting_.pop_front();
  ++stats.refused;
  return true;
}

void Mux::Impl::classify(Waiting::iterator which, std::string_view bytes) {
  const auto first = static_cast<Tag>(bytes[0]);
  const std::shared_ptr<const Service> service = services[first];
  std::unique_ptr<Counted> connection = std::move(which->connection);
  connection->pause();
  waiting_.erase(which);
  if (!service) {
    ++stats.unknown_tag;
    log_line(options.log_sink, LogLevel::info, "port: {} began with byte 0x{:02x}, which no service claims",
             connection->remote(), first);
    return;
  }
  const bool application = service->peeked || first >= first_application_tag;
  const unsigned reserved = std::min(options.reserved_for_peers, options.connections_max);
  if (application && census->applications >= options.connections_max - reserved) {
    ++stats.refused;
    return;
  }
  if (application) connection->count_as_application();
  ++stats.classified;
  service->handler(std::move(connection), std::string(service->peeked ? bytes : bytes.substr(1)));
}

void Mux::Impl::arm_deadline() {
  if (timer_ != 0 || waiting_.empty()) return;
  timer_ = loop.after(waiting_.front().deadline - loop.now(), [this] { expire(); });
}

void Mux::Impl::expire() {
  timer_ = 0;
  const Duration now = loop.now();
  while (!waiting_.empty() && waiting_.front().deadline <= now) {
    waiting_.pop_front();
    ++stats.classify_timeout;
  }
  arm_deadline();
}

Result<void> Mux::Impl::claim(std::string_view first_bytes, const ServiceHandler& handler, bool peeked) {
  if (first_bytes.empty() || !handler)
    return fail(Errc::invalid_argument, "a service needs a first byte and a handler");
  for (const char byte : first_bytes) {
    const auto tag = static_cast<Tag>(byte);
    const bool allowed =
        peeked ? tag >= 0x20 && tag <= 0x7f : tag <= 0x08 || (tag >= 0x0e && tag <= 0x15) || tag >= 0x80;
    if (!allowed) {
      return fail(Errc::invalid_argument,
                  fmt::format("0x{:02x} cannot be a {} first byte", tag, peeked ? "peeked" : "tagged"));
    }
    if (services[tag]) return fail(Errc::invalid_argument, fmt::format("0x{:02x} is claimed already", tag));
  }
  const auto service = std::make_shared<const Service>(Service{handler, peeked});
  for (const char byte : first_bytes) services[static_cast<Tag>(byte)] = service;
  return {};
}

void Mux::Impl::close() {
  listener.reset();
  waiting_.clear();
  if (timer_ != 0) loop.cancel(std::exchange(timer_, 0));
}

Mux::Mux(Loop& loop, Transport& transport, MuxOptions options)
    : impl_(std::make_unique<Impl>(loop, transport, std::move(options))) {}

Mux::~Mux() = default;

Result<void> Mux::listen(const Address& address) {
  FLOTILLA_ASSERT(impl_->loop.is_current());
  if (impl_->listener) return fail(Errc::invalid_argument, "the port listens already");
  Impl* const impl = impl_.get();
  AcceptEvents events{
      .accepted = [impl](std::unique_ptr<Connection> connection) { impl->accepted(std::move(connection)); },
      .failed = [impl](const Error& error) { impl->accept_failed(error); }};
  auto listening = impl_->transport.listen(address, std::move(events));
  if (!listening) return fail(listening.error());
  impl_->listener = std::move(*listening);
  return {};
}

Address Mux::address() const {
  return impl_->listener ? impl_->listener->address() : Address();
}

Result<void> Mux::add(Tag tag, ServiceHandler handler) {
  const char byte = static_cast<char>(tag);
  return impl_->claim(std::string_view(&byte, 1), handler, false);
}

Result<void> Mux::add_peeked(std::string_view first_bytes, ServiceHandler handler) {
  return impl_->claim(first_bytes, handler, true);
}

void Mux::remove(Tag tag) {
  const auto service = impl_->services[tag];  // kept until the table is clean: it may be running
  for (auto& entry : impl_->services) {
    if (service && entry == service) entry.reset();
  }
}

StreamMuxStats Mux::stats() const {
  StreamMuxStats stats = impl_->stats;
  stats.open = impl_->census->open;
  return stats;
}

void Mux::close() {
  impl_->close();
}

}  // namespace flotilla::net
