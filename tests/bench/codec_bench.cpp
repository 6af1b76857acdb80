// Encoding: what a caller makes of a command, what the leader makes of an entry, what goes to the other members.
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "net/codec.hpp"
#include "net/frame.hpp"
#include "raft/entry.hpp"
#include "state/payload.hpp"

namespace {

using namespace flotilla;

constexpr std::size_t frame_bytes_max = 64u << 20;

void count(benchmark::State& state, std::size_t items, std::size_t bytes) {
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(items));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
}

/// A put of a 16-byte key; the argument is the value's length.
void encode_command(benchmark::State& state) {
  const std::string key(16, 'k');
  const std::string value(static_cast<std::size_t>(state.range(0)), 'v');
  const std::string_view args[] = {"bench", key, value};
  std::uint64_t sequence = 0;
  for (auto _ : state) {
    ++sequence;
    benchmark::DoNotOptimize(state::encode_command({1, sequence}, sequence, "put", args));
  }
  count(state, 1, state::encoded_command_bytes("put", args));
}
BENCHMARK(encode_command)->Arg(100)->Arg(1 << 10)->Arg(16 << 10);

/// Of a payload of so many bytes.
void record_checksum(benchmark::State& state) {
  raft::Entry entry{.term = Term{1}, .index = Index{1}, .type = raft::EntryType::command};
  entry.payload = SharedBytes(std::string(static_cast<std::size_t>(state.range(0)), 'x'));
  for (auto _ : state) {
    raft::seal(entry);
    benchmark::DoNotOptimize(entry.crc);
  }
  count(state, 1, raft::record_bytes(entry));
}
BENCHMARK(record_checksum)->Arg(100)->Arg(1 << 10)->Arg(16 << 10);

raft::Message append_request(std::int64_t entries) {
  raft::AppendRequest request{.prev_index = Index{1}, .prev_term = Term{1}, .commit_index = Index{1}};
  for (std::int64_t i = 0; i < entries; ++i) {
    raft::Entry& entry = request.entries.emplace_back();
    entry.term = Term{1};
    entry.index = Index{2 + static_cast<std::uint64_t>(i)};
    entry.type = raft::EntryType::command;
    entry.payload = SharedBytes(std::string(130, 'x'));
    raft::seal(entry);
  }
  return {.from = NodeId{1}, .to = NodeId{2}, .term = Term{1}, .body = std::move(request)};
}

/// An append of so many entries of 130 bytes, up to what is handed to the socket.
void encode_frame(benchmark::State& state) {
  const raft::Message message = append_request(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(net::to_wire(net::encode(message)));
  count(state, static_cast<std::size_t>(state.range(0)), net::frame_bytes(net::encode(message)));
}
BENCHMARK(encode_frame)->Arg(0)->Arg(1)->Arg(64);

/// The same from what the socket gives, with both checksums.
void decode_frame(benchmark::State& state) {
  std::string wire;
  for (const SharedBytes& part : net::to_wire(net::encode(append_request(state.range(0))))) wire += part.view();
  net::FrameReader reader(frame_bytes_max);
  for (auto _ : state) {
    std::string_view bytes = wire;
    const auto frame = reader.next(bytes);
    auto message = frame ? net::decode(*frame) : std::nullopt;
    if (!message) state.SkipWithError("not decoded");
    benchmark::DoNotOptimize(message);
  }
  count(state, static_cast<std::size_t>(state.range(0)), wire.size());
}
BENCHMARK(decode_frame)->Arg(0)->Arg(1)->Arg(64);

}  // namespace
