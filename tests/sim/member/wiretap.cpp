#include "wiretap.hpp"

#include "net/codec.hpp"
#include "net/frame.hpp"
#include "net/hello.hpp"
#include "net/mux.hpp"

namespace flotilla::sim {

/// Who dials begins with a tag; who answers on a link of consensus says nothing but its hello.
struct Wiretap::Stream {
  enum class Part { tag, hello, frames, other };
  Part part = Part::tag;
  net::HelloReader hello;
  net::FrameReader frames{64u << 20};
};

bool Wiretap::sent(std::uint64_t socket, std::string_view bytes) {
  std::shared_ptr<Stream>& known = streams_[socket];
  if (!known) known = std::make_shared<Stream>();
  const std::shared_ptr<Stream> stream = known;
  if (stream->part == Stream::Part::tag && !bytes.empty()) {
    const bool ours = static_cast<unsigned char>(bytes.front()) == net::raft_tag;
    stream->part = ours ? Stream::Part::hello : Stream::Part::other;
    bytes.remove_prefix(1);
  }
  if (stream->part == Stream::Part::hello && stream->hello.feed(bytes) == net::HelloReader::State::hello) {
    stream->part = Stream::Part::frames;
  }
  if (stream->part == Stream::Part::frames) {
    while (const auto frame = stream->frames.next(bytes)) {
      if (const auto message = net::decode(*frame)) said_(*message);
    }
    if (stream->frames.broken()) stream->part = Stream::Part::other;
  }
  return stream->part != Stream::Part::other;
}

}  // namespace flotilla::sim
