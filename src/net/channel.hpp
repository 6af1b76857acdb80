// A connection that speaks handshake and frames; Link and LinkServer are made of it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "net/frame.hpp"
#include "net/hello.hpp"
#include "net/link.hpp"

namespace flotilla::net {

class Channel;

/// Thread: loop. Each may destroy the channel.
class ChannelOwner {
 public:
  /// The other side's statement, once. The owner calls open() if it greeted first, else accept() or refuse(), or it
  /// destroys the channel.
  virtual void on_hello(Channel& channel, const Hello& hello) = 0;
  virtual void on_frame(Channel& channel, ReceivedFrame frame) = 0;
  /// Nothing follows: destroy it.
  virtual void on_broken(Channel& channel, const Error& error) = 0;

 protected:
  ~ChannelOwner() = default;
};

class Channel final : public ConnectionHandler {
 public:
  Channel(Loop& loop, ChannelOwner& owner, std::uint64_t id, std::unique_ptr<Connection> connection,
          const FrameLimits& limits);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  std::uint64_t id() const { return id_; }
  /// Begins to read; `initial` arrived before. May call the owner.
  void start(std::string_view initial);
  /// States `hello`; frames queued since on_hello began follow it.
  void accept(const Hello& hello);
  /// For the side that stated itself first: sends the tag and its own statement; frames may follow once on_hello came.
  void greet(Tag tag, const Hello& hello);
  void open();
  /// Sends why not, and lets the other side read it before the connection goes: on_broken follows. What still arrives
  /// is not looked at.
  void refuse(const Error& error);
  /// False: over a limit; certainly not sent.
  bool send(Frame frame);
  std::size_t unsent_bytes() const { return connection_->unsent_bytes(); }

 private:
  void on_data(std::string_view bytes) override;
  void on_end() override;
  void on_closed(const Error& error) override;
  void on_deadline();
  void read_hello(std::string_view& bytes);
  void read_frames(std::string_view bytes);
  void arm(Duration delay);

  enum class State : std::uint8_t { greeting, answering, open, refusing };

  Loop& loop_;
  ChannelOwner& owner_;
  const std::uint64_t id_;
  const std::unique_ptr<Connection> connection_;
  const FrameLimits limits_;
  HelloReader hello_;
  FrameReader frames_;
  State state_ = State::greeting;
  std::vector<SharedBytes> held_;  // sent by the owner before its answer
  std::size_t held_bytes_ = 0;
  Loop::TimerId timer_ = 0;
  Duration last_received_{};
  // The owner may destroy the channel while one of our functions calls it: that looks here before it goes on.
  const std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);
};

}  // namespace flotilla::net
