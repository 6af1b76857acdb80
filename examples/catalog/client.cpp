#include "client.hpp"

#include <sstream>
#include <utility>

namespace catalog {

using flotilla::Result;

namespace {

Answer::Outcome parse_outcome(const std::string& word) {
  if (word == "ok") return Answer::Outcome::ok;
  if (word == "refused") return Answer::Outcome::refused;
  if (word == "failed") return Answer::Outcome::failed;
  return Answer::Outcome::unknown;
}

}  // namespace

Result<std::unique_ptr<Client>> Client::connect(flotilla::StreamMux& mux, const flotilla::Address& address) {
  Result<flotilla::Stream> stream = mux.dial(address, service_tag);
  if (!stream) return flotilla::fail(stream.error());
  return std::unique_ptr<Client>(new Client(std::move(*stream)));
}

Client::Client(flotilla::Stream stream) : stream_(std::move(stream)) {
  reader_ = std::thread([this] { read_answers(); });
}

Client::~Client() {
  stream_.close();
  reader_.join();
}

void Client::request(std::vector<std::string> words, std::string body, Done done) {
  // Ids go out in their order; the reader takes `mutex_` alone, so a slow write never keeps answers from being read.
  const std::scoped_lock order(write_mutex_);
  std::unique_lock lock(mutex_);
  if (ended_) {
    lock.unlock();
    return done({});
  }
  const std::string id = std::to_string(++last_id_);
  waiting_.emplace(id, std::move(done));
  lock.unlock();
  words.insert(words.begin(), id);
  // After a failed write the reader finds the end of the stream and ends this request with all others.
  if (!stream_.write(encode(Message{std::move(words), std::move(body)}))) stream_.close();
}

void Client::read_answers() {
  MessageReader reader(stream_);
  while (true) {
    Result<Message> message = reader.read();
    if (!message) break;
    Done done;
    {
      const std::scoped_lock lock(mutex_);
      const auto at = waiting_.find(message->words[0]);
      if (at == waiting_.end()) continue;
      done = std::move(at->second);
      waiting_.erase(at);
    }
    done({parse_outcome(message->words[1]), std::move(message->body)});
  }
  std::map<std::string, Done> rest;
  {
    const std::scoped_lock lock(mutex_);
    ended_ = true;
    rest.swap(waiting_);
  }
  for (auto& [id, done] : rest) done({});
}

Answer Client::ask(std::vector<std::string> words, std::string body, std::chrono::milliseconds deadline) {
  auto answered = std::make_shared<std::promise<Answer>>();
  std::future<Answer> answer = answered->get_future();
  request(std::move(words), std::move(body), [answered](Answer a) { answered->set_value(std::move(a)); });
  if (answer.wait_for(deadline) != std::future_status::ready) return {};
  return answer.get();
}

bool Client::connected() {
  const std::scoped_lock lock(mutex_);
  return !ended_;
}

void Client::upsert(Identity identity, std::optional<std::uint64_t> revision, std::string record, Done done) {
  request(
      {"upsert", identity == Identity::archive ? "archive" : "installed", revision ? std::to_string(*revision) : "-"},
      std::move(record), std::move(done));
}

std::optional<MemberStatus> Client::status() {
  const Answer answer = ask({"status"}, {}, std::chrono::seconds(5));
  if (!answer.ok()) return std::nullopt;
  MemberStatus status;
  std::istringstream lines(answer.body);
  std::string name;
  while (lines >> name) {
    if (name == "role") {
      lines >> status.role;
    } else if (name == "leader") {
      lines >> status.leader;
    } else if (name == "term") {
      lines >> status.term;
    } else if (name == "commit") {
      lines >> status.commit;
    } else if (name == "applied") {
      lines >> status.applied;
    } else if (name == "last") {
      lines >> status.last;
    } else if (name == "snapshots") {
      lines >> status.snapshots;
    } else if (name == "voters") {
      lines >> status.voters;
    } else if (name == "members") {
      lines >> status.members;
    } else {
      std::string rest;
      std::getline(lines >> std::ws, rest);
      if (name == "fault") status.fault = rest;
    }
  }
  return status;
}

std::optional<Contents> Client::contents() {
  const Answer answer = ask({"hash"});
  Contents contents;
  std::istringstream words(answer.body);
  if (!answer.ok() || !(words >> contents.index >> contents.hash >> contents.records)) return std::nullopt;
  return contents;
}

std::optional<std::vector<std::string>> Client::dependents(const std::string& name) {
  const Answer answer = ask({"needs", name});
  if (!answer.ok()) return std::nullopt;
  std::vector<std::string> keys;
  std::istringstream lines(answer.body);
  for (std::string line; std::getline(lines, line);) keys.push_back(line);
  return keys;
}

std::optional<std::map<std::string, std::uint64_t>> Client::revisions() {
  const Answer answer = ask({"revisions"});
  if (!answer.ok()) return std::nullopt;
  std::map<std::string, std::uint64_t> all;
  std::istringstream lines(answer.body);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t tab = line.rfind('\t');
    if (tab != std::string::npos) all[line.substr(0, tab)] = std::strtoull(line.c_str() + tab + 1, nullptr, 10);
  }
  return all;
}

}  // namespace catalog
