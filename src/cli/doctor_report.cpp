#include "cli/doctor_report.hpp"

#include <functional>
#include <string_view>

#include <fmt/format.h>

#include "log/format.hpp"

namespace flotilla::cli {
namespace {

std::string hex(NodeId id) {
  return fmt::format("{:016x}", id.value);
}
std::string hex(ClusterId id) {
  return fmt::format("{:016x}{:016x}", id.high, id.low);
}
std::string_view name_of(TableKind kind) {
  return kind == TableKind::plain ? "plain" : "sorted_duplicates";
}

// --- JSON

std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (const char byte : text) {
    if (byte == '"' || byte == '\\') {
      out += fmt::format("\\{}", byte);
    } else if (byte >= ' ' && byte <= '~') {
      out += byte;
    } else {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(byte));
    }
  }
  return out + '"';
}

/// Values that are JSON already.
std::string object(std::initializer_list<std::pair<std::string_view, std::string>> fields) {
  std::string out;
  for (const auto& [name, value] : fields) out += fmt::format("{}\"{}\": {}", out.empty() ? "" : ", ", name, value);
  return "{" + out + "}";
}
template <class Values, class Print>
std::string list(const Values& values, Print print) {
  std::string out;
  for (const auto& value : values) out += (out.empty() ? "" : ", ") + print(value);
  return "[" + out + "]";
}
template <class Value, class Print>
std::string or_null(const std::optional<Value>& value, Print print) {
  return value ? print(*value) : "null";
}
std::string json(bool value) {
  return value ? "true" : "false";
}
std::string json(std::uint64_t value) {
  return fmt::to_string(value);
}

std::string json(const log::Identity& identity) {
  return object({{"cluster_id", identity.cluster_id ? json_text(hex(identity.cluster_id)) : "null"},
                 {"node_id", json_text(hex(identity.node_id))},
                 {"incarnation", json(identity.incarnation)}});
}

std::string json(const log::SegmentStart& start) {
  return object({{"name", json_text(log::segment_name(start.segment.id))},
                 {"bytes", json(start.segment.bytes)},
                 {"first_block", or_null(start.first, [](const auto& block) { return json(block.number); })}});
}

std::string json(const log::Log::Recovered& log, const std::optional<node::Examination::TornTail>& torn_tail) {
  const NodeId vote = log.hard_state.voted_for;
  return object({{"first_index", json(log.first_index.value)},
                 {"last_index", json(log.last_index.value)},
                 {"last_term", json(log.last_term.value)},
                 {"term", json(log.hard_state.term.value)},
                 {"vote", vote ? json_text(hex(vote)) : "null"},
                 {"commit_index", json(log.commit_index.value)},
                 {"blocks", json(log.blocks)},
                 {"torn_tail", or_null(torn_tail, [](const auto& tail) {
                    return object({{"segment", json_text(tail.segment)}, {"offset", json(tail.offset)}});
                  })}});
}

std::string json(const state::Checkpoint& checkpoint) {
  return object({{"index", json(checkpoint.index.value)},
                 {"term", json(checkpoint.term.value)},
                 {"transaction", json(checkpoint.meta.txn_id())},
                 {"installed", json(checkpoint.installed)}});
}

std::string json(const state::Content::Pages& pages) {
  return object({{"bytes", json(std::uint64_t{pages.bytes})}, {"used", json(pages.used)}, {"free", json(pages.free)}});
}

std::string json(const state::Content& content) {
  const auto member = [](const Member& one) {
    return object(
        {{"node_id", json_text(hex(one.id))}, {"address", json_text(one.address)}, {"voter", json(one.voter)}});
  };
  const auto table = [](const state::Content::Table& one) {
    return object({{"name", json_text(one.name)}, {"kind", json_text(name_of(one.kind))}, {"pairs", json(one.pairs)}});
  };
  return object({{"index", json(content.applied.index.value)},
                 {"term", json(content.applied.term.value)},
                 {"transaction", json(std::uint64_t{content.txn_id})},
                 {"members", list(content.applied.configuration.members, member)},
                 {"tables", list(content.tables, table)},
                 {"pages", or_null(content.pages, [](const auto& pages) { return json(pages); })},
                 {"hash", or_null(content.hash, [](auto hash) { return json_text(fmt::format("{:016x}", hash)); })}});
}

std::string json(const node::Examination::Problem& problem) {
  return object({{"part", json_text(problem.part)},
                 {"code", fmt::to_string(problem.error.code().value())},
                 {"message", json_text(problem.error.message())}});
}

// --- Text

std::string size_of(std::uint64_t bytes) {
  constexpr std::uint64_t mebibyte = 1u << 20;
  return bytes < mebibyte ? fmt::format("{} KiB", bytes >> 10) : fmt::format("{} MiB", bytes / mebibyte);
}

/// Lines of a name and what there is to say.
class Lines {
 public:
  template <class... Values>
  void add(std::string_view name, fmt::format_string<Values...> text, Values&&... values) {
    out_ += fmt::format("{:<12}{}\n", name, fmt::format(text, std::forward<Values>(values)...));
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

void add_log(Lines& lines, const node::Examination& found) {
  std::uint64_t bytes = 0;
  for (const auto& start : found.segments) bytes += start.segment.bytes;
  if (!found.segments.empty()) {
    lines.add("segments", "{} to {}, {}", log::segment_name(found.segments.front().segment.id),
              log::segment_name(found.segments.back().segment.id), size_of(bytes));
  }
  if (!found.log) return;
  const log::Log::Recovered& log = *found.log;
  if (log.first_index > log.last_index) {
    lines.add("log", "no entries, the next is {}; term {}", log.first_index.value, log.hard_state.term.value);
  } else {
    lines.add("log", "entries {} to {} (term {}), committed to {} at least; term {}", log.first_index.value,
              log.last_index.value, log.last_term.value, log.commit_index.value, log.hard_state.term.value);
  }
  if (found.torn_tail) lines.add("", "a torn tail in {} from {} on", found.torn_tail->segment, found.torn_tail->offset);
}

void add_content(Lines& lines, const state::Content& content) {
  lines.add("content", "at entry {} (term {}), transaction {}", content.applied.index.value, content.applied.term.value,
            content.txn_id);
  if (content.pages) {
    lines.add("", "{} pages in use, {} free, of {} bytes", content.pages->used, content.pages->free,
              content.pages->bytes);
  }
  for (const Member& member : content.applied.configuration.members) {
    lines.add("member", "{} {} {}", hex(member.id), member.voter ? "voter  " : "learner", member.address);
  }
  for (const auto& table : content.tables)
    lines.add("table", "{}: {} pairs, {}", table.name, table.pairs, name_of(table.kind));
  if (content.hash) lines.add("hash", "{:016x}", *content.hash);
}

}  // namespace

std::string doctor_text(const node::Examination& found) {
  Lines lines;
  lines.add("directory", "{}", found.directory.string());
  if (found.live) {
    lines.add("live", "process {} has it open: this is a moment of a member that goes on, and not verified",
              found.holder);
  }
  if (found.identity) {
    lines.add("node", "{}, incarnation {}", hex(found.identity->node_id), found.identity->incarnation);
    lines.add("cluster", "{}", found.identity->cluster_id ? hex(found.identity->cluster_id) : "none yet");
  }
  add_log(lines, found);
  if (found.checkpoint) {
    lines.add("checkpoint", "of {} at entry {} (term {}), transaction {}{}", found.database,
              found.checkpoint->index.value, found.checkpoint->term.value, found.checkpoint->meta.txn_id(),
              found.checkpoint->installed ? ", an installed snapshot" : "");
  }
  if (found.content) add_content(lines, *found.content);
  for (const std::string& step : found.start) lines.add("a start", "{}", step);
  for (const auto& problem : found.problems) lines.add("PROBLEM", "{}: {}", problem.part, problem.error.message());
  if (found.identity && !found.live && !found.locked)
    lines.add("note", "there is no LOCK, so a member could have started meanwhile");
  lines.add("verdict", "{}", found.sound() ? "sound" : "a start is refused; nothing was changed");
  return lines.take();
}

std::string doctor_json(const node::Examination& found) {
  const auto print = [](const auto& value) { return json(value); };
  const std::string live = object({{"process", fmt::to_string(found.holder)}});
  return object({{"directory", json_text(found.directory.string())},
                 {"sound", json(found.sound())},
                 {"live", found.live ? live : "null"},
                 {"locked", json(found.locked)},
                 {"identity", or_null(found.identity, print)},
                 {"segments", list(found.segments, print)},
                 {"log", or_null(found.log, [&](const auto& log) { return json(log, found.torn_tail); })},
                 {"database", found.database.empty() ? "null" : json_text(found.database)},
                 {"leftovers", list(found.leftovers, [](const std::string& name) { return json_text(name); })},
                 {"checkpoint", or_null(found.checkpoint, print)},
                 {"content", or_null(found.content, print)},
                 {"start", list(found.start, [](const std::string& step) { return json_text(step); })},
                 {"problems", list(found.problems, print)}}) +
         "\n";
}

}  // namespace flotilla::cli
