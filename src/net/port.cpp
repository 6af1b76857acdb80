#include "net/port.hpp"

#include <future>

#include "base/assert.hpp"
#include "net/asio_loop.hpp"
#include "net/tcp.hpp"

namespace flotilla::net {

class Port::Impl {
 public:
  Impl(MuxOptions options, std::function<void(const Error&)> failed)
      : loop(std::make_shared<AsioLoop>(std::move(failed))),
        transport(loop),
        mux(*loop, transport, std::move(options)) {}

  const std::shared_ptr<AsioLoop> loop;  // sockets that outlive the port keep it
  TcpTransport transport;
  Mux mux;
};

Port::Port() = default;

Port::~Port() {
  stop();
}

std::shared_ptr<Port> Port::start(MuxOptions options, std::function<void(const Error&)> failed) {
  std::shared_ptr<Port> port(new Port);
  port->impl_ = std::make_unique<Impl>(std::move(options), std::move(failed));
  port->impl_->loop->start_thread();
  return port;
}

Loop& Port::loop() {
  return *impl_->loop;
}

Transport& Port::transport() {
  return impl_->transport;
}

Mux& Port::mux() {
  return impl_->mux;
}

void Port::run_and_wait(Task task) {
  FLOTILLA_ASSERT(!impl_->loop->is_current());
  std::promise<void> ran;
  std::future<void> ended = ran.get_future();
  // Whether the task runs, throws or is destroyed because the loop stopped: the promise goes, and the wait ends.
  impl_->loop->post([task = std::move(task), ran = std::move(ran)]() mutable {
    task();
    ran.set_value();
  });
  ended.wait();
}

void Port::stop() {
  if (!impl_) return;
  impl_->loop->post([this] { impl_->mux.close(); });
  impl_->loop->stop();
}

}  // namespace flotilla::net
