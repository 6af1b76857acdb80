#include "recording.hpp"

#include <fstream>
#include <iterator>
#include <stdexcept>

#include <fmt/format.h>

#include "base/codec.hpp"
#include "history.hpp"
#include "judge.hpp"
#include "member.hpp"
#include "recorder.hpp"
#include "workload.hpp"

namespace crash {

namespace raft = flotilla::raft;

namespace {

constexpr std::size_t payload_bytes_max = 64u << 20;

/// All that is in the log of a member alone is committed.
Truth truth_of(const std::vector<OperationPtr>& operations) {
  History history;
  for (const OperationPtr& operation : operations) history.take(*operation);
  Truth truth;
  for (const raft::Entry& entry : history.at(history.versions()).entries) truth.add(entry);
  return truth;
}

std::string run_driver(const Workload& workload, std::uint64_t seed, const std::filesystem::path& data_dir,
                       const Planted& planted, Truth& truth) {
  Member member({.data_dir = data_dir,
                 .segment_bytes = seed % 3 == 0 ? std::size_t{4096} : std::size_t{8192},
                 .prepare_ahead = seed % 2 == 0,
                 .state_first = planted.state_first},
                truth);
  Driver driver(member, truth, seed);
  if (auto done = driver.run(workload); !done) return done.error().message();
  return check_contents(data_dir, truth, member.applied());
}

void put(flotilla::Encoder& out, const Operation& operation) {
  out.u8(static_cast<std::uint8_t>(operation.kind)).u32(operation.inode).u32(operation.directory).bytes(operation.name);
  out.bytes(operation.new_name).u8(static_cast<std::uint8_t>(operation.type)).u64(operation.offset);
  out.bytes(operation.bytes).u8(operation.durable ? 1 : 0).u8(operation.failed ? 1 : 0);
  out.u8(static_cast<std::uint8_t>(operation.mark)).u64(operation.value).u64(operation.second);
}

Operation take(flotilla::Decoder& in) {
  Operation operation;
  operation.kind = static_cast<Operation::Kind>(in.u8());
  operation.inode = in.u32();
  operation.directory = in.u32();
  operation.name = in.bytes();
  operation.new_name = in.bytes();
  operation.type = static_cast<InodeType>(in.u8());
  operation.offset = in.u64();
  operation.bytes = in.bytes();
  operation.durable = in.u8() != 0;
  operation.failed = in.u8() != 0;
  operation.mark = static_cast<MarkKind>(in.u8());
  operation.value = in.u64();
  operation.second = in.u64();
  return operation;
}

}  // namespace

Recording record(const std::string& workload, std::uint64_t seed, const std::filesystem::path& root,
                 const Planted& planted) {
  Recording recording;
  recording.workload = workload;
  recording.seed = seed;
  recording.sole = workload == "db";
  std::filesystem::create_directory(root);
  const std::filesystem::path data_dir = root / "data";
  Recorder::ignore_syncs(planted.ignored_syncs);
  Recorder::begin(root, Disk());
  Recorder::set_fault(planted.fault);
  if (recording.sole) {
    if (auto done = run_db(data_dir, seed); !done) recording.failure = done.error().message();
  } else {
    recording.failure = run_driver(*find_workload(workload), seed, data_dir, planted, recording.truth);
  }
  recording.struck = Recorder::struck();
  Recorder::end();
  recording.operations = Recorder::operations();
  if (recording.sole) recording.truth = truth_of(recording.operations);
  return recording;
}

void Recording::write_to(const std::filesystem::path& file) const {
  std::string bytes;
  flotilla::Encoder out(bytes);
  out.bytes(workload).u64(seed).u8(sole ? 1 : 0).u64(truth.last());
  for (std::uint64_t i = 1; i <= truth.last(); ++i) {
    const raft::Entry& entry = truth.entry(i);
    std::string header(raft::record_header_bytes, '\0');
    raft::put_record_header(header.data(), entry);
    out.raw(header).raw(entry.payload.view());
  }
  out.u64(operations.size());
  for (const OperationPtr& operation : operations) put(out, *operation);
  std::ofstream(file, std::ios::binary) << bytes;
}

Recording Recording::read_from(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  const auto owner =
      std::make_shared<const std::string>(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  flotilla::Decoder in(*owner);
  Recording recording;
  recording.workload = in.bytes();
  recording.seed = in.u64();
  recording.sole = in.u8() != 0;
  for (std::uint64_t count = in.u64(); count > 0; --count) {
    raft::Entry entry;
    if (raft::parse_record(owner, in.rest(), payload_bytes_max, entry) != raft::RecordState::whole) break;
    in.raw(raft::record_bytes(entry));
    recording.truth.add(entry);
  }
  for (std::uint64_t count = in.u64(); count > 0 && in.ok(); --count) {
    recording.operations.push_back(std::make_shared<const Operation>(take(in)));
  }
  if (!in.done()) throw std::runtime_error("no recording: " + file.string());
  return recording;
}

std::string describe(const Operation& operation) {
  static constexpr const char* marks[] = {"starting",  "started",    "promised", "acknowledged",
                                          "committed", "installing", "installed"};
  switch (operation.kind) {
    case Operation::Kind::make:
      return fmt::format("make {} as {} in {}{}{}", operation.inode, operation.name, operation.directory,
                         operation.type == InodeType::directory ? ", a directory" : "",
                         operation.type == InodeType::link ? ", a link to " + operation.bytes : "");
    case Operation::Kind::unlink: return fmt::format("unlink {} in {}", operation.name, operation.directory);
    case Operation::Kind::rename:
      return fmt::format("rename {} from {} to {} in {}", operation.inode, operation.name, operation.new_name,
                         operation.directory);
    case Operation::Kind::write:
      return fmt::format("write {} at {}, {} bytes{}", operation.inode, operation.offset, operation.bytes.size(),
                         operation.durable ? ", durable" : "");
    case Operation::Kind::resize: return fmt::format("resize {} to {}", operation.inode, operation.offset);
    case Operation::Kind::sync: return fmt::format("sync {}{}", operation.inode, operation.failed ? ", failed" : "");
    case Operation::Kind::mark:
      return fmt::format("-- {} {} {}", marks[static_cast<std::size_t>(operation.mark)], operation.value,
                         operation.second);
  }
  return {};
}

}  // namespace crash
