#include "session.hpp"

#include <array>
#include <span>
#include <string_view>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "catalog.hpp"

namespace catalog {

using flotilla::Bytes;
using flotilla::Errc;
using flotilla::Result;

namespace {

/// What a caller may do after an error.
std::string outcome_of(const flotilla::Error& error) {
  for (const Errc code : {Errc::outcome_unknown, Errc::stopped}) {
    if (error == code) return "unknown";
  }
  for (const Errc code : {Errc::not_leader, Errc::no_leader, Errc::overloaded, Errc::timeout, Errc::proposal_dropped,
                          Errc::unknown_command, Errc::shutting_down}) {
    if (error == code) return "refused";
  }
  return "failed";
}

std::string describe(const flotilla::Status& status) {
  std::size_t voters = 0;
  for (const flotilla::Member& member : status.members) voters += member.voter ? 1 : 0;
  return fmt::format(
      "role {}\nterm {}\nlast {}\ncommit {}\napplied {}\nvoters {}\nmembers {}\nleader {}\nlisten {}\nsnapshots {}\n"
      "fault {}\n",
      flotilla::to_string(status.role), status.term.value, status.last_index.value, status.commit_index.value,
      status.applied_index.value, voters, status.members.size(), status.leader ? status.leader->address : "-",
      status.listen, status.snapshots_installed, status.fault ? status.fault->message() : "-");
}

std::string join_lines(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text.append(line).append("\n");
  return text;
}

std::string list_revisions(const Catalog& catalog) {
  std::string text;
  for (const Upserted& one : catalog.revisions()) text.append(fmt::format("{}\t{}\n", one.key, one.revision));
  return text;
}

}  // namespace

void Session::run() {
  std::thread writer([this] { write_answers(); });
  while (true) {
    Result<Message> request = reader_.read();
    if (!request) {
      if (request.error() == Errc::invalid_argument) answer("-", "failed", request.error().message());
      break;
    }
    dispatch(std::move(*request));
  }
  {
    const std::scoped_lock lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
  writer.join();
  stream_.close();
}

void Session::dispatch(Message request) {
  const std::string id = request.words[0];
  const std::string& verb = request.words[1];
  if (verb == "upsert") return upsert(std::move(request));
  if (verb == "status") return answer(id, "ok", describe(db_.status()));

  const Result<flotilla::ReadTxn> snapshot = db_.read();
  if (!snapshot) return answer_error(id, snapshot.error());
  const Catalog catalog(*snapshot);
  if (verb == "revisions") return answer(id, "ok", list_revisions(catalog));
  if (verb == "hash") {
    return answer(id, "ok",
                  fmt::format("{} {:016x} {}", snapshot->index().value, content_hash(*snapshot), catalog.size()));
  }
  if (verb == "show") {
    const auto record = snapshot->table("packages").get(request.body);
    return record ? answer(id, "ok", std::string(*record)) : answer(id, "failed", "no such record");
  }
  if (request.words.size() == 3 && verb == "needs") {
    return answer(id, "ok", join_lines(catalog.dependents(request.words[2])));
  }
  if (request.words.size() == 3 && verb == "section") {
    return answer(id, "ok", join_lines(catalog.in_section(request.words[2])));
  }
  answer(id, "failed", "no such request");
}

void Session::upsert(Message request) {
  if (request.words.size() != 4) return answer(request.words[0], "failed", "upsert takes an identity and a revision");
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return in_flight_ < in_flight_max; });
    ++in_flight_;
  }
  const bool any_revision = request.words[3] == "-";
  const std::array<std::string_view, 3> args{request.words[2], request.body, request.words[3]};
  // The session lives until its last call has ended, also when the peer is gone by then.
  auto done = [self = shared_from_this(), id = request.words[0]](Result<Bytes> result) {
    if (result) {
      self->answer(id, "ok", std::move(*result));
    } else {
      self->answer_error(id, result.error());
    }
    {
      const std::scoped_lock lock(self->mutex_);
      --self->in_flight_;
    }
    self->changed_.notify_all();
  };
  db_.command("upsert_package", std::span(args).first(any_revision ? 2 : 3), std::move(done));
}

void Session::answer(const std::string& id, std::string outcome, std::string body) {
  std::string bytes = encode(Message{{id, std::move(outcome)}, std::move(body)});
  {
    const std::scoped_lock lock(mutex_);
    answers_.push_back(std::move(bytes));
  }
  changed_.notify_all();
}

void Session::answer_error(const std::string& id, const flotilla::Error& error) {
  answer(id, outcome_of(error), error.message());
}

/// Hands over all that is ready in one write. Ends once the reader has ended and every call was answered.
void Session::write_answers() {
  std::unique_lock lock(mutex_);
  bool connected = true;
  while (true) {
    changed_.wait(lock, [&] { return !answers_.empty() || (ended_ && in_flight_ == 0); });
    if (answers_.empty()) return;
    std::string bytes;
    for (const std::string& one : answers_) bytes += one;
    answers_.clear();
    lock.unlock();
    // A peer that is gone is found by the reader, too; here it only means that nobody wants the rest.
    if (connected) connected = stream_.write(bytes).has_value();
    lock.lock();
  }
}

}  // namespace catalog
