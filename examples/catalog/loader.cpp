#include "loader.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include <fmt/format.h>

namespace catalog {

using flotilla::Errc;
using flotilla::fail;
using flotilla::Result;
using namespace std::chrono_literals;

Result<Input> read_input(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(Errc::io_error, path + " cannot be read");
  std::stringstream all;
  all << file.rdbuf();
  Input input;
  input.text = std::make_shared<const std::string>(std::move(all).str());
  if (input.text->rfind("Status: ", 0) == 0 || input.text->find("\nStatus: ") != std::string::npos) {
    input.identity = Identity::installed;
  }
  Stanzas stanzas(*input.text);
  while (const auto stanza = stanzas.next()) {
    const Result<Package> package = parse_package(*stanza);
    if (package) {
      input.records.push_back({record_key(*package, input.identity), *stanza});
    } else {
      input.malformed.push_back(fmt::format("line {}: {}", stanzas.line(), package.error().message()));
    }
  }
  if (input.records.empty()) return fail(Errc::invalid_argument, path + " holds no package record");
  return input;
}

Loader::Loader(const std::vector<Record>& records, Identity identity, std::size_t window)
    : records_(records),
      identity_(identity),
      window_(window),
      conditional_(records.size()),
      last_acknowledgement_(Clock::now()) {
  for (std::size_t position = 0; position < records.size(); ++position) queue_.push_back(position);
}

Loader::~Loader() {
  drain();
}

Result<void> Loader::load(Client& client, std::size_t goal, std::size_t limit,
                          const std::function<void(std::size_t)>& progress, std::chrono::seconds patience) {
  std::unique_lock lock(mutex_);
  last_acknowledgement_ = Clock::now();
  Clock::time_point last_progress;
  while (acknowledged_ < goal) {
    if (failure_) return fail(Errc::command_failed, *failure_);
    if (!client.connected()) return fail(Errc::closed, "the member is gone");
    const Clock::time_point now = Clock::now();
    if (now - last_acknowledgement_ > patience) {
      return fail(Errc::timeout, fmt::format("no record was acknowledged for {} s", patience.count()));
    }
    if (now - last_progress > 250ms) {
      last_progress = now;
      progress(acknowledged_);
    }
    // The queue is in order, but for records to be sent again, which stand in front.
    const bool nothing_to_send = queue_.empty() || queue_.front() >= limit;
    if (nothing_to_send || in_flight_ >= window_ || now < not_before_) {
      changed_.wait_for(lock, 20ms);
      continue;
    }
    const std::size_t position = queue_.front();
    queue_.pop_front();
    ++in_flight_;
    lock.unlock();
    send(client, position);
    lock.lock();
  }
  progress(acknowledged_);
  return {};
}

void Loader::send(Client& client, std::size_t position) {
  const Record& record = records_[position];
  std::optional<std::uint64_t> condition;
  {
    const std::scoped_lock lock(mutex_);
    if (conditional_[position]) condition = ledger_[record.key].acknowledged;
  }
  client.upsert(identity_, condition, std::string(record.text),
                [this, position, condition](const Answer& answer) { ended(position, answer, condition); });
}

void Loader::ended(std::size_t position, const Answer& answer, std::optional<std::uint64_t> condition) {
  const std::string& key = records_[position].key;
  // Notified under the lock: whoever drains may destroy this as soon as it is released.
  const std::scoped_lock lock(mutex_);
  --in_flight_;
  switch (answer.outcome) {
    case Answer::Outcome::ok: acknowledge(key); break;
    case Answer::Outcome::refused:
      queue_.push_front(position);
      not_before_ = Clock::now() + 20ms;
      break;
    case Answer::Outcome::unknown:
      // From now on only if it has not happened. The first copy may still come after the second.
      conditional_[position] = true;
      ++ledger_[key].asked_again;
      ++asked_again_;
      queue_.push_front(position);
      not_before_ = Clock::now() + 20ms;
      break;
    case Answer::Outcome::failed:
      if (condition && answer.body.find("has revision") != std::string::npos) {
        --ledger_[key].asked_again;
        acknowledge(key);
      } else if (!failure_) {
        failure_ = key + ": " + answer.body;
      }
      break;
  }
  changed_.notify_all();
}

void Loader::acknowledge(const std::string& key) {
  const Clock::time_point now = Clock::now();
  longest_pause_ = std::max(longest_pause_, now - last_acknowledgement_);
  last_acknowledgement_ = now;
  ++acknowledged_;
  ++ledger_[key].acknowledged;
}

void Loader::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return in_flight_ == 0; });
}

std::size_t Loader::acknowledged() const {
  const std::scoped_lock lock(mutex_);
  return acknowledged_;
}

std::size_t Loader::in_flight() const {
  const std::scoped_lock lock(mutex_);
  return in_flight_;
}

std::size_t Loader::asked_again() const {
  const std::scoped_lock lock(mutex_);
  return asked_again_;
}

Loader::Clock::duration Loader::longest_pause() const {
  const std::scoped_lock lock(mutex_);
  return longest_pause_;
}

void Loader::begin_pause_watch() {
  const std::scoped_lock lock(mutex_);
  longest_pause_ = {};
  last_acknowledgement_ = Clock::now();
}

std::optional<std::string> compare(const std::map<std::string, Ledger>& ledger,
                                   const std::map<std::string, std::uint64_t>& revisions) {
  for (const auto& [key, entry] : ledger) {
    const auto at = revisions.find(key);
    const std::uint64_t found = at == revisions.end() ? 0 : at->second;
    if (found < entry.acknowledged) {
      return fmt::format("{}: {} writes were acknowledged, {} are there", key, entry.acknowledged, found);
    }
    if (found > entry.acknowledged + entry.asked_again) {
      return fmt::format("{}: {} writes were acknowledged, but it was written {} times", key, entry.acknowledged,
                         found);
    }
  }
  for (const auto& [key, revision] : revisions) {
    if (ledger.find(key) == ledger.end()) return key + ": nobody wrote this record";
  }
  return std::nullopt;
}

}  // namespace catalog
