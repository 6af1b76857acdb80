#include "wire.hpp"

#include <charconv>

namespace catalog {

using flotilla::Bytes;
using flotilla::Errc;
using flotilla::fail;
using flotilla::Result;

namespace {

std::vector<std::string> split(std::string_view line) {
  std::vector<std::string> words;
  while (!line.empty()) {
    const std::size_t blank = line.find(' ');
    words.emplace_back(line.substr(0, blank));
    line.remove_prefix(blank == std::string_view::npos ? line.size() : blank + 1);
  }
  return words;
}

/// Takes the size off the end of a line's words.
Result<std::size_t> take_size(std::vector<std::string>& words) {
  std::size_t size = 0;
  if (words.size() < 3) return fail(Errc::invalid_argument, "a message has an id, a verb and a size");
  const std::string& last = words.back();
  const auto [end, error] = std::from_chars(last.data(), last.data() + last.size(), size);
  if (error != std::errc() || end != last.data() + last.size() || size > body_bytes_max) {
    return fail(Errc::invalid_argument, "the size of a body is malformed or over the limit");
  }
  words.pop_back();
  return size;
}

}  // namespace

std::string encode(const Message& message) {
  std::string bytes;
  for (const std::string& word : message.words) bytes.append(word).append(" ");
  return bytes.append(std::to_string(message.body.size())).append("\n").append(message.body);
}

Result<void> MessageReader::fill(std::chrono::milliseconds deadline) {
  Result<Bytes> more = stream_.read(65536, deadline);
  if (!more) return fail(more.error());
  if (more->empty()) return fail(Errc::closed, "end of stream");
  buffer_ += *more;
  return {};
}

Result<Message> MessageReader::read(std::chrono::milliseconds deadline) {
  std::size_t newline = 0;
  while ((newline = buffer_.find('\n')) == std::string::npos) {
    if (buffer_.size() > line_bytes_max) return fail(Errc::invalid_argument, "a line is over the limit");
    if (auto ok = fill(deadline); !ok) return fail(ok.error());
  }
  Message message{split(std::string_view(buffer_).substr(0, newline)), {}};
  const Result<std::size_t> size = take_size(message.words);
  if (!size) return fail(size.error());
  while (buffer_.size() < newline + 1 + *size) {
    if (auto ok = fill(deadline); !ok) return fail(ok.error());
  }
  message.body = buffer_.substr(newline + 1, *size);
  buffer_.erase(0, newline + 1 + *size);
  return message;
}

}  // namespace catalog
