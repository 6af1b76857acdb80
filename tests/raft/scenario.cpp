#include "raft/scenario.hpp"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <sstream>
#include <tuple>

#include <fmt/format.h>

namespace flotilla::raft::testing {
namespace {

std::uint64_t number(const std::string& word) {
  char* end = nullptr;
  const std::uint64_t value = std::strtoull(word.c_str(), &end, 10);
  if (word.empty() || *end != '\0') FAIL("not a number: ", word);
  return value;
}

/// "3/2": index 3 of term 2.
std::pair<Index, Term> position(const std::string& word) {
  const auto slash = word.find('/');
  if (slash == std::string::npos) FAIL("not index/term: ", word);
  return {Index{number(word.substr(0, slash))}, Term{number(word.substr(slash + 1))}};
}

std::string text(const Configuration& configuration) {
  const auto list = [](const std::vector<Member>& members) {
    std::string ids;
    for (const Member& member : members) {
      ids += (ids.empty() ? "" : " ") + std::to_string(member.id.value) + (member.voter ? "" : "L");
    }
    return ids;
  };
  std::string all = list(configuration.members);
  if (configuration.joint()) all += " & " + list(configuration.outgoing);
  return "{" + all + "}";
}

std::string text(const Entry& entry) {
  std::string what;
  switch (entry.type) {
    case EntryType::noop: what = "noop"; break;
    case EntryType::command: what = std::string(entry.payload.view()); break;
    case EntryType::session: what = "session"; break;
    case EntryType::configuration:
      what = text(decode_configuration(entry.payload.view()).value_or(Configuration{}));
      break;
  }
  return fmt::format("{}/{}{}{}", entry.index.value, entry.term.value, what.empty() ? "" : " ", what);
}

std::string text(const std::vector<Entry>& entries) {
  std::string all;
  for (const Entry& entry : entries) all += (all.empty() ? "" : ", ") + text(entry);
  return "[" + all + "]";
}

struct BodyText {
  std::string operator()(const VoteRequest& body) const {
    return fmt::format("{}vote?{} last {}/{}", body.pre ? "pre" : "", body.transfer ? " (ordered)" : "",
                       body.last_index.value, body.last_term.value);
  }
  std::string operator()(const VoteReply& body) const {
    return fmt::format("{}vote {}", body.pre ? "pre" : "", body.granted ? "yes" : "no");
  }
  std::string operator()(const AppendRequest& body) const {
    return fmt::format("append after {}/{} {} commit {}", body.prev_index.value, body.prev_term.value,
                       text(body.entries), body.commit_index.value);
  }
  std::string operator()(const AppendReply& body) const {
    if (body.accepted)
      return fmt::format("appended up to {}{}", body.match_index.value, body.rejected_index ? " full" : "");
    return fmt::format("rejected after {} conflict {}/{} last {}", body.rejected_index.value, body.conflict_index.value,
                       body.conflict_term.value, body.last_index.value);
  }
  std::string operator()(const Heartbeat& body) const {
    return fmt::format("heartbeat commit {} round {}", body.commit_index.value, body.read_round);
  }
  std::string operator()(const HeartbeatReply& body) const { return fmt::format("alive round {}", body.read_round); }
  std::string operator()(const ReadIndexRequest& body) const { return fmt::format("read? {}", body.id); }
  std::string operator()(const ReadIndexReply& body) const {
    if (!body.accepted) return fmt::format("read {} refused", body.id);
    return fmt::format("read {} at {}", body.id, body.read_index.value);
  }
  std::string operator()(const TimeoutNow&) const { return "stand now"; }
  std::string operator()(const SnapshotRequest& body) const {
    return fmt::format("snapshot {}/{} {}", body.index.value, body.index_term.value, text(body.configuration));
  }
  std::string operator()(const SnapshotReply& body) const {
    return body.accepted ? fmt::format("installed up to {}", body.match_index.value) : "not installed";
  }
};

/// The word that selects a kind of message.
struct BodyKind {
  std::string operator()(const VoteRequest& body) const { return body.pre ? "prevote?" : "vote?"; }
  std::string operator()(const VoteReply& body) const { return body.pre ? "prevote" : "vote"; }
  std::string operator()(const AppendRequest&) const { return "append"; }
  std::string operator()(const AppendReply& body) const { return body.accepted ? "appended" : "rejected"; }
  std::string operator()(const Heartbeat&) const { return "heartbeat"; }
  std::string operator()(const HeartbeatReply&) const { return "alive"; }
  std::string operator()(const ReadIndexRequest&) const { return "read?"; }
  std::string operator()(const ReadIndexReply&) const { return "read"; }
  std::string operator()(const TimeoutNow&) const { return "stand"; }
  std::string operator()(const SnapshotRequest&) const { return "snapshot"; }
  std::string operator()(const SnapshotReply&) const { return "installed"; }
};

/// Words "1 2 L3": voters 1 and 2, learner 3.
Configuration members_of(const std::vector<std::string>& words, std::size_t from) {
  Configuration configuration;
  for (std::size_t i = from; i < words.size() && words[i] != "empty"; ++i) {
    const bool is_learner = words[i][0] == 'L';
    const std::uint64_t id = number(is_learner ? words[i].substr(1) : words[i]);
    configuration.members.push_back(is_learner ? learner(id) : voter(id));
  }
  std::sort(configuration.members.begin(), configuration.members.end(),
            [](const Member& left, const Member& right) { return left.id < right.id; });
  return configuration;
}

std::vector<std::string> split(std::string list) {
  std::replace(list.begin(), list.end(), ',', ' ');
  std::istringstream in(list);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

/// "4/2:text", "4/2:noop", "4/2:{1,2,L3&4,5}": entry 4 of term 2.
Entry entry_of(const std::string& word) {
  const auto colon = word.find(':');
  const auto [index, term] = position(word.substr(0, colon));
  const std::string what = colon == std::string::npos ? "" : word.substr(colon + 1);
  Entry made{term, index, EntryType::command, 0, 0, SharedBytes(what)};
  if (what == "noop") made = Entry{term, index, EntryType::noop, 0, 0, {}};
  if (!what.empty() && what[0] == '{') {
    const std::string ids = what.substr(1, what.size() - 2);
    const auto bar = ids.find('&');
    Configuration configuration = members_of(split(ids.substr(0, bar)), 0);
    if (bar != std::string::npos) configuration.outgoing = members_of(split(ids.substr(bar + 1)), 0).members;
    made.type = EntryType::configuration;
    made.payload = SharedBytes(encode(configuration));
  }
  seal(made);
  return made;
}

}  // namespace

std::string to_text(const Message& message) {
  return fmt::format("{} -> {} t{} {}", message.from.value, message.to.value, message.term.value,
                     std::visit(BodyText{}, message.body));
}

// ---- the file ----

std::string Scenario::run(std::string_view file) {
  std::string result;
  std::istringstream in{std::string(file)};
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("    ", 0) == 0) continue;
    result += line + "\n";
    if (line.empty() || line[0] == '#') continue;
    trace_.clear();
    std::istringstream words_in(line);
    Words words;
    for (std::string word; words_in >> word;) words.push_back(word);
    INFO("command: " << line);
    execute(words);
    result += trace_;
  }
  return result;
}

void Scenario::say(std::string line) {
  if (!quiet_) trace_ += "    " + std::move(line) + "\n";
}

std::vector<std::uint64_t> Scenario::everybody() const {
  std::vector<std::uint64_t> ids;
  for (std::uint64_t id = 1; id <= count_; ++id) ids.push_back(id);
  return ids;
}

void Scenario::execute(const Words& all) {
  Words words = all;
  quiet_ = words[0] == "quiet";
  if (quiet_) words.erase(words.begin());
  const bool known = execute_setup(words) || execute_time(words) || execute_disk(words) || execute_network(words) ||
                     execute_request(words) || execute_snapshot(words);
  if (!known) FAIL("unknown command: ", words[0]);
  quiet_ = false;
}

// ---- commands ----

bool Scenario::execute_setup(const Words& words) {
  const std::string& verb = words[0];
  if (verb == "nodes") {
    make_cluster(words);
  } else if (verb == "option") {
    set_option(words);
  } else if (verb == "log") {
    set_log(words);
  } else if (verb == "add") {
    for (std::size_t i = 1; i < words.size(); ++i) {
      cluster_->add(number(words[i]));
      count_ = std::max(count_, number(words[i]));
    }
  } else if (verb == "state") {
    show_state(words);
  } else if (verb == "logs") {
    show_log(words);
  } else if (verb == "progress") {
    show_progress(words);
  } else if (verb == "network") {
    show_network();
  } else {
    return false;
  }
  return true;
}

void Scenario::make_cluster(const Words& words) {
  count_ = number(words[1]);
  Configuration configuration = members_of(words, 2);
  if (words.size() == 2) {
    for (std::uint64_t id = 1; id <= count_; ++id) configuration.members.push_back(voter(id));
  }
  const auto adjustments = adjustments_;
  cluster_ = std::make_unique<Cluster>(count_, configuration, [adjustments](CoreOptions& options) {
    for (const auto& adjust : adjustments) adjust(options);
  });
  cluster_->serve = false;
  observe();
}

void Scenario::set_option(const Words& words) {
  static const std::map<std::string, std::size_t CoreOptions::*> sizes{
      {"append_bytes_max", &CoreOptions::append_bytes_max},
      {"inflight_bytes_max", &CoreOptions::inflight_bytes_max},
      {"inflight_messages_max", &CoreOptions::inflight_messages_max},
      {"uncommitted_bytes_max", &CoreOptions::uncommitted_bytes_max},
      {"tail_bytes_max", &CoreOptions::tail_bytes_max},
      {"committed_bytes_max", &CoreOptions::committed_bytes_max},
      {"unapplied_bytes_max", &CoreOptions::unapplied_bytes_max},
      {"payload_bytes_max", &CoreOptions::payload_bytes_max},
  };
  const std::uint64_t value = number(words.at(2));
  if (words[1] == "storage_stall_ticks") {
    adjustments_.push_back(
        [value](CoreOptions& options) { options.storage_stall_ticks = static_cast<unsigned>(value); });
    return;
  }
  const auto member = sizes.at(words[1]);
  adjustments_.push_back([member, value](CoreOptions& options) { options.*member = value; });
}

/// log ID TERM... [: term T] [vote V] [commit C] — the log on disk before its start; "2:{1,2}" is a configuration.
void Scenario::set_log(const Words& words) {
  const std::uint64_t id = number(words[1]);
  std::vector<Entry> entries;
  HardState hard_state;
  Index commit_index;
  for (std::size_t i = 2; i < words.size(); ++i) {
    if (words[i] == "term") {
      hard_state.term = Term{number(words.at(++i))};
    } else if (words[i] == "vote") {
      hard_state.voted_for = node(number(words.at(++i)));
    } else if (words[i] == "commit") {
      commit_index = Index{number(words.at(++i))};
    } else {
      const auto colon = words[i].find(':');
      const std::string what = colon == std::string::npos ? "" : words[i].substr(colon);
      entries.push_back(entry_of(fmt::format("{}/{}{}", entries.size() + 1, words[i].substr(0, colon), what)));
      hard_state.term = std::max(hard_state.term, entries.back().term);
    }
  }
  cluster_->replace_log(id, std::move(entries), hard_state, commit_index);
}

bool Scenario::execute_time(const Words& words) {
  const std::string& verb = words[0];
  const auto times = [&](std::size_t at) { return words.size() > at ? number(words[at]) : 1; };
  if (verb == "tick") {
    for (std::uint64_t i = 0; i < times(2); ++i) cluster_->tick(number(words[1]));
  } else if (verb == "ticks") {
    // Everybody's clock, and everything that follows from it.
    cluster_->tick_all(static_cast<unsigned>(times(1)));
  } else if (verb == "settle") {
    cluster_->settle();
  } else if (verb == "campaign") {
    cluster_->core(number(words[1])).campaign();
    cluster_->take(number(words[1]));
  } else if (verb == "elect") {
    quiet_ = true;
    cluster_->elect(number(words[1]));
    cluster_->settle();
  } else if (verb == "forget_leader") {
    quiet_ = true;
    cluster_->forget_leader();
    cluster_->network.clear();
  } else {
    return false;
  }
  return true;
}

bool Scenario::execute_disk(const Words& words) {
  const std::string& verb = words[0];
  if (verb == "hold") {
    for (std::size_t i = 1; i < words.size(); ++i) cluster_->hold_writes(number(words[i]));
  } else if (verb == "release") {
    for (std::size_t i = 1; i < words.size(); ++i) {
      cluster_->release_writes(number(words[i]));
      cluster_->take(number(words[i]));
    }
  } else if (verb == "sync") {
    if (!cluster_->sync_one(number(words[1]))) say("nothing to write");
    cluster_->take(number(words[1]));
  } else if (verb == "crash") {
    for (std::size_t i = 1; i < words.size(); ++i) cluster_->crash(number(words[i]));
  } else if (verb == "start") {
    for (std::size_t i = 1; i < words.size(); ++i) cluster_->start(number(words[i]));
  } else if (verb == "restart") {
    for (std::size_t i = 1; i < words.size(); ++i) cluster_->restart(number(words[i]));
  } else if (verb == "trim") {
    cluster_->trim(number(words[1]), Index{number(words.at(2))});
  } else {
    return false;
  }
  return true;
}

bool Scenario::execute_network(const Words& words) {
  const std::string& verb = words[0];
  if (verb == "deliver") {
    deliver(words, false);
  } else if (verb == "repeat") {
    deliver(words, true);
  } else if (verb == "drop") {
    drop(words);
  } else if (verb == "cut") {
    cluster_->cut(number(words[1]), number(words.at(2)));
  } else if (verb == "isolate") {
    cluster_->isolate(number(words[1]));
  } else if (verb == "split") {
    std::vector<std::uint64_t> left, right;
    const auto bar = std::find(words.begin() + 1, words.end(), "|");
    for (auto word = words.begin() + 1; word != words.end(); ++word) {
      if (word != bar) (word < bar ? left : right).push_back(number(*word));
    }
    cluster_->split(left, right);
  } else if (verb == "heal") {
    cluster_->heal();
    cluster_->filter = nullptr;
  } else if (verb == "lose") {
    // From now on messages of this selection are lost.
    const Words selection(words.begin() + 1, words.end());
    cluster_->filter = [this, selection](const Message& message) { return !selected(message, selection, 0); };
  } else if (verb == "unreachable") {
    cluster_->core(number(words[1])).unreachable(node(number(words.at(2))));
    cluster_->take(number(words[1]));
  } else if (verb == "message") {
    inject(words);
  } else {
    return false;
  }
  return true;
}

/// [from F] [to T] [kind K]; nothing selects everything.
bool Scenario::selected(const Message& message, const Words& words, std::size_t from) const {
  for (std::size_t i = from; i + 1 < words.size(); i += 2) {
    const std::string& wanted = words[i + 1];
    if (words[i] == "from" && message.from != node(number(wanted))) return false;
    if (words[i] == "to" && message.to != node(number(wanted))) return false;
    if (words[i] == "kind" && std::visit(BodyKind{}, message.body) != wanted) return false;
  }
  return true;
}

/// What is on its way now and selected, once or twice; not what it leads to.
void Scenario::deliver(const Words& words, bool twice) {
  std::deque<Message> all;
  all.swap(cluster_->network);
  std::deque<Message> chosen;
  for (Message& message : all) (selected(message, words, 1) ? chosen : cluster_->network).push_back(message);
  for (const Message& message : chosen) {
    if (!cluster_->passes(message)) {
      say("lost: " + to_text(message));
      continue;
    }
    for (int i = 0; i < (twice ? 2 : 1); ++i) {
      say("to " + std::to_string(message.to.value) + ": " + to_text(message));
      cluster_->core(message.to.value).step(message);
      cluster_->take(message.to.value);
    }
  }
}

void Scenario::drop(const Words& words) {
  std::erase_if(cluster_->network, [&](const Message& message) {
    if (!selected(message, words, 1)) return false;
    say("dropped: " + to_text(message));
    return true;
  });
}

/// message F T TERM KIND ...: as if it had arrived.
void Scenario::inject(const Words& words) {
  const std::uint64_t from = number(words.at(1));
  const std::uint64_t to = number(words.at(2));
  const std::uint64_t term = number(words.at(3));
  const std::string& kind = words.at(4);
  const auto has = [&](const char* word) { return std::find(words.begin(), words.end(), word) != words.end(); };
  const auto value = [&](std::size_t at) { return words.size() > at ? number(words[at]) : 0; };
  Body body;
  if (kind == "vote?" || kind == "prevote?") {
    const auto [index, last_term] = position(words.at(5));
    body = VoteRequest{kind == "prevote?", has("ordered"), index, last_term};
  } else if (kind == "vote" || kind == "prevote") {
    body = VoteReply{kind == "prevote", words.at(5) == "yes"};
  } else if (kind == "append") {
    const auto [prev, prev_term] = position(words.at(5));
    AppendRequest request{prev, prev_term, Index{value(6)}, {}};
    for (std::size_t i = 7; i < words.size(); ++i) request.entries.push_back(entry_of(words[i]));
    body = std::move(request);
  } else if (kind == "appended") {
    body = AppendReply{.accepted = true, .match_index = Index{value(5)}};
  } else if (kind == "rejected") {
    AppendReply reply{.accepted = false, .rejected_index = Index{value(5)}, .last_index = Index{value(6)}};
    if (words.size() > 7) std::tie(reply.conflict_index, reply.conflict_term) = position(words[7]);
    body = reply;
  } else if (kind == "heartbeat") {
    body = Heartbeat{Index{value(5)}, value(6)};
  } else if (kind == "alive") {
    body = HeartbeatReply{value(5)};
  } else if (kind == "read?") {
    body = ReadIndexRequest{value(5)};
  } else if (kind == "read") {
    body = ReadIndexReply{value(5), words.size() > 6, Index{value(6)}};
  } else if (kind == "stand") {
    body = TimeoutNow{};
  } else if (kind == "snapshot") {
    const auto [index, index_term] = position(words.at(5));
    body = SnapshotRequest{index, index_term, members_of(words, 6)};
  } else if (kind == "installed") {
    body = SnapshotReply{words.size() > 5, Index{value(5)}};
  } else {
    FAIL("unknown message: ", kind);
  }
  const std::uint64_t before = cluster_->core(to).ignored_messages();
  cluster_->send(from, to, term, std::move(body));
  if (cluster_->core(to).ignored_messages() > before) say(fmt::format("{} ignores it", to));
}

bool Scenario::execute_request(const Words& words) {
  const std::string& verb = words[0];
  if (verb == "propose") {
    const std::uint64_t id = number(words[1]);
    for (std::size_t i = 2; i < words.size(); ++i) {
      const auto position = cluster_->core(id).propose(EntryType::command, SharedBytes(words[i]), 0);
      if (!position.has_value()) say(fmt::format("{} refuses: {}", words[i], position.error().message()));
    }
    cluster_->take(id);
  } else if (verb == "change") {
    change(words);
  } else if (verb == "read") {
    for (std::size_t i = 2; i < words.size(); ++i) cluster_->core(number(words[1])).request_read(number(words[i]));
    cluster_->take(number(words[1]));
  } else if (verb == "transfer") {
    const auto begun = cluster_->core(number(words[1])).transfer_leadership(node(number(words.at(2))));
    if (!begun.has_value()) say("refused: " + begun.error().message());
    cluster_->take(number(words[1]));
  } else {
    return false;
  }
  return true;
}

void Scenario::change(const Words& words) {
  const std::uint64_t id = number(words[1]);
  const auto position = cluster_->core(id).propose_configuration(members_of(words, 2), 0);
  if (!position.has_value()) say("refused: " + position.error().message());
  cluster_->take(id);
}

bool Scenario::execute_snapshot(const Words& words) {
  const std::string& verb = words[0];
  if (verb == "answer_log_reads") {
    cluster_->serve_log_reads(number(words[1]));
  } else if (verb == "serve") {
    cluster_->serve = true;
  } else if (verb == "bring_snapshots") {
    cluster_->serve_snapshots(number(words[1]));
  } else if (verb == "snapshot_failed") {
    cluster_->server(number(words[1])).snapshot_sends.clear();
    cluster_->core(number(words[1])).snapshot_failed(node(number(words.at(2))));
    cluster_->take(number(words[1]));
  } else if (verb == "install") {
    const std::uint64_t id = number(words[1]);
    if (words.size() > 2) {
      // Whatever a peer's file says, as if it had arrived complete: what is written about it is not traced.
      const auto [index, index_term] = position(words[2]);
      const Index configuration_index{words.size() > 3 ? number(words[3]) : 0};
      cluster_->core(id).snapshot_installed({index, index_term, members_of(words, 4), configuration_index, 0});
      const Facts facts = cluster_->core(id).facts();
      say(fmt::format("{} commit {} last {}/{}", id, facts.commit_index.value, facts.last_index.value,
                      facts.last_term.value));
      for (const Message& message : cluster_->core(id).take_ready().messages) say(to_text(message));
    } else if (!cluster_->server(id).offer.has_value() || !cluster_->server(id).received.has_value()) {
      say("nothing to install");
    } else {
      cluster_->install(id);
    }
  } else if (verb == "refuse") {
    cluster_->server(number(words[1])).offer.reset();
    cluster_->core(number(words[1])).snapshot_refused();
    cluster_->take(number(words[1]));
  } else {
    return false;
  }
  return true;
}

// ---- the trace ----

void Scenario::observe() {
  cluster_->on_ready = [this](std::uint64_t id, const Ready& ready) { trace_ready(id, ready); };
  cluster_->on_sync = [this](std::uint64_t id, const Ready& ready) {
    if (ready.must_write() && !cluster_->server(id).auto_sync)
      say(fmt::format("{} is durable up to Ready {}", id, ready.sequence));
    for (const Message& message : ready.messages_after_sync) say(to_text(message));
  };
}

void Scenario::trace_ready(std::uint64_t id, const Ready& ready) {
  const Core& core = cluster_->core(id);
  if (ready.role_changed) {
    const NodeId leader = core.leader_id();
    say(fmt::format("{} is {} in term {}{}", id, to_string(core.role()), core.term().value,
                    leader && leader != node(id) ? fmt::format(" of {}", leader.value) : ""));
  }
  if (ready.configuration_changed) say(fmt::format("{} is in {}", id, text(core.configuration())));
  for (const Message& message : ready.messages) say(to_text(message));
  if (ready.hard_state.has_value()) {
    say(fmt::format("{} writes term {} vote {}", id, ready.hard_state->term.value, ready.hard_state->voted_for.value));
  }
  if (ready.log_restart.has_value())
    say(fmt::format("{} begins its log anew after {}", id, ready.log_restart->index.value));
  if (!ready.entries.empty()) say(fmt::format("{} writes {}", id, text(ready.entries)));
  if (!ready.committed.empty()) say(fmt::format("{} applies {}", id, text(ready.committed)));
  for (const ReadState& read : ready.reads) {
    say(read.read_index.has_value() ? fmt::format("{} reads {} at {}", id, read.id, read.read_index->value)
                                    : fmt::format("{} cannot read {}", id, read.id));
  }
  for (const LogRead& read : ready.log_reads)
    say(fmt::format("{} needs its log from {} for {}", id, read.first_index.value, read.peer.value));
  for (const SnapshotSend& send : ready.snapshot_sends)
    say(fmt::format("{} needs a snapshot for {}", id, send.peer.value));
  if (ready.snapshot_offer.has_value())
    say(fmt::format("{} is offered a snapshot at {}", id, ready.snapshot_offer->index.value));
}

void Scenario::show_state(const Words& words) {
  std::vector<std::uint64_t> ids;
  for (std::size_t i = 1; i < words.size(); ++i) ids.push_back(number(words[i]));
  for (std::uint64_t id : ids.empty() ? everybody() : ids) {
    if (!cluster_->up(id)) {
      say(fmt::format("{} is down", id));
      continue;
    }
    const Facts facts = cluster_->core(id).facts();
    say(fmt::format("{} {} term {} vote {} leader {} commit {} stable {} last {}/{} {}", id, to_string(facts.role),
                    facts.term.value, facts.voted_for.value, facts.leader_id.value, facts.commit_index.value,
                    facts.stable_index.value, facts.last_index.value, facts.last_term.value,
                    text(cluster_->core(id).configuration())));
  }
}

void Scenario::show_log(const Words& words) {
  std::vector<std::uint64_t> ids;
  for (std::size_t i = 1; i < words.size(); ++i) ids.push_back(number(words[i]));
  for (std::uint64_t id : ids.empty() ? everybody() : ids) {
    const Disk& disk = cluster_->disk(id);
    const std::string base =
        disk.base.index ? fmt::format("after {}/{} ", disk.base.index.value, disk.base.term.value) : "";
    say(fmt::format("{} term {} vote {} {}{}", id, disk.hard_state.term.value, disk.hard_state.voted_for.value, base,
                    text(disk.entries)));
  }
}

void Scenario::show_progress(const Words& words) {
  const std::uint64_t id = number(words[1]);
  for (std::uint64_t other : everybody()) {
    const Progress* progress = cluster_->core(id).progress(node(other));
    if (progress == nullptr) continue;
    static const char* const modes[] = {"probe", "replicate", "snapshot"};
    say(fmt::format("{} {} match {} next {} in flight {}{}{}{}", other, modes[static_cast<int>(progress->mode())],
                    progress->match_index().value, progress->next_index().value, progress->inflight_messages(),
                    progress->paused() ? " paused" : "", progress->leaving ? " leaving" : "",
                    cluster_->core(id).caught_up(node(other)) ? "" : " behind"));
  }
}

void Scenario::show_network() {
  if (cluster_->network.empty()) say("nothing");
  for (const Message& message : cluster_->network) say(to_text(message));
}

}  // namespace flotilla::raft::testing
