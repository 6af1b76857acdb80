#include "net/channel.hpp"

#include <iterator>

#include "base/assert.hpp"

namespace flotilla::net {
namespace {

// How long a refused peer may take to read why and to close.
constexpr Duration refusal_linger = std::chrono::seconds(1);

}  // namespace

Channel::Channel(Loop& loop, ChannelOwner& owner, std::uint64_t id, std::unique_ptr<Connection> connection,
                 const FrameLimits& limits)
    : loop_(loop),
      owner_(owner),
      id_(id),
      connection_(std::move(connection)),
      limits_(limits),
      frames_(limits.frame_bytes_max),
      last_received_(loop.now()) {
  arm(limits_.handshake_timeout);
}

Channel::~Channel() {
  if (timer_ != 0) loop_.cancel(timer_);
}

void Channel::start(std::string_view initial) {
  connection_->start(*this);
  connection_->resume();
  if (!initial.empty()) on_data(initial);
}

void Channel::accept(const Hello& hello) {
  FLOTILLA_ASSERT(state_ == State::answering);
  state_ = State::open;
  std::vector<SharedBytes> parts;
  parts.emplace_back(encode_hello(hello));
  parts.insert(parts.end(), std::make_move_iterator(held_.begin()), std::make_move_iterator(held_.end()));
  held_.clear();
  held_bytes_ = 0;
  connection_->send(std::move(parts));
}

void Channel::greet(Tag tag, const Hello& hello) {
  connection_->send(SharedBytes(std::string(1, static_cast<char>(tag)) + encode_hello(hello)));
}

void Channel::open() {
  FLOTILLA_ASSERT(state_ == State::answering);
  state_ = State::open;
}

void Channel::refuse(const Error& error) {
  state_ = State::refusing;
  held_.clear();
  connection_->send(SharedBytes(encode_refusal(error)));
  connection_->finish();
  arm(refusal_linger);
}

bool Channel::send(Frame frame) {
  if (state_ == State::greeting || state_ == State::refusing) return false;
  const std::size_t bytes = frame_bytes(frame);
  if (bytes - frame_header_bytes > limits_.frame_bytes_max) return false;
  if (connection_->unsent_bytes() + held_bytes_ + bytes > limits_.unsent_bytes_max) return false;
  std::vector<SharedBytes> parts = to_wire(std::move(frame));
  if (state_ == State::open) {
    connection_->send(std::move(parts));
  } else {
    held_bytes_ += bytes;
    held_.insert(held_.end(), std::make_move_iterator(parts.begin()), std::make_move_iterator(parts.end()));
  }
  return true;
}

void Channel::on_data(std::string_view bytes) {
  if (state_ == State::refusing) return;
  if (state_ == State::greeting) {
    const std::weak_ptr<const bool> alive = alive_;
    read_hello(bytes);
    if (alive.expired() || state_ == State::greeting) return;
  }
  read_frames(bytes);
}

void Channel::read_hello(std::string_view& bytes) {
  const HelloReader::State read = hello_.feed(bytes);
  if (read == HelloReader::State::short_of) return;
  if (read != HelloReader::State::hello) return owner_.on_broken(*this, hello_.error());
  state_ = State::answering;
  if (timer_ != 0) loop_.cancel(std::exchange(timer_, 0));
  if (limits_.idle_timeout > Duration::zero()) arm(limits_.idle_timeout);
  owner_.on_hello(*this, hello_.hello());
}

void Channel::read_frames(std::string_view bytes) {
  if (limits_.idle_timeout > Duration::zero()) last_received_ = loop_.now();
  const std::weak_ptr<const bool> alive = alive_;
  while (!bytes.empty() && state_ != State::refusing) {
    std::optional<ReceivedFrame> frame = frames_.next(bytes);
    if (!frame) break;
    owner_.on_frame(*this, std::move(*frame));
    if (alive.expired()) return;
  }
  if (frames_.broken()) {
    const Error error = *frames_.broken();
    owner_.on_broken(*this, error);
  }
}

void Channel::on_end() {
  owner_.on_broken(*this, Error(Errc::closed, "the other side closed the connection"));
}

void Channel::on_closed(const Error& error) {
  owner_.on_broken(*this, error);
}

void Channel::arm(Duration delay) {
  if (timer_ != 0) loop_.cancel(timer_);
  timer_ = loop_.after(delay, [this] {
    timer_ = 0;
    on_deadline();
  });
}

void Channel::on_deadline() {
  if (state_ == State::greeting) return owner_.on_broken(*this, Error(Errc::timeout, "no handshake in time"));
  if (state_ == State::refusing) return owner_.on_broken(*this, Error(Errc::closed, "refused"));
  // One timer per silence, not one per frame: it looks how long the silence really is.
  const Duration silent = loop_.now() - last_received_;
  if (silent < limits_.idle_timeout) return arm(limits_.idle_timeout - silent);
  owner_.on_broken(*this, Error(Errc::timeout, "nothing arrived for too long"));
}

}  // namespace flotilla::net
