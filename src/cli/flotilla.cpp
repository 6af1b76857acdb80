// The `flotilla` program: what one does to a member from outside of it.
#include <cstdio>
#include <string_view>
#include <vector>

#include "cli/doctor_report.hpp"
#include "node/doctor.hpp"

namespace flotilla::cli {
namespace {

constexpr int usage_error = 2;

constexpr std::string_view help = R"(usage: flotilla doctor [--json] [--no-content] DIR

Explains the data directory DIR of a member: who it is, its log, its checkpoint, its content, and what a start would do.
Changes nothing in it, and keeps members from starting in it meanwhile.

  --json         one object; src/cli/doctor_report.hpp describes it
  --no-content   leave out the database: only its checkpoint is looked at

Verified: all checksums of the identity, of every block and record of the log, and of the checkpoint; that log and
database belong together; in the database, as of the checkpoint, every page in use: its place, kind and bounds, the order
of keys, all counts, and that no page in use is listed as free. Not verified: bytes within keys and values of the
database, which has no checksums; compare `hash` with that of another member at the same entry. Nothing is copied, so it
takes no disk.

While a member has DIR open, it is not verified: what is printed is a moment of a member that goes on, read from its files
and by a short read transaction of its database.

Exit status: 0 sound, 1 a start would be refused (PROBLEM says why), 2 wrong usage.
)";

void print(std::FILE* to, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), to);
}

int wrong_usage() {
  print(stderr, help);
  return usage_error;
}

int doctor(const std::vector<std::string_view>& words) {
  node::ExamineOptions options;
  bool json = false;
  std::vector<std::string_view> directories;
  for (const std::string_view word : words) {
    if (word == "--json") {
      json = true;
    } else if (word == "--no-content") {
      options.content = false;
    } else if (word.starts_with("-") || word.empty()) {
      return wrong_usage();
    } else {
      directories.push_back(word);
    }
  }
  if (directories.size() != 1) return wrong_usage();
  const node::Examination found = node::examine(directories.front(), options);
  print(stdout, json ? doctor_json(found) : doctor_text(found));
  return found.sound() ? 0 : 1;
}

int run(const std::vector<std::string_view>& words) {
  for (const std::string_view word : words) {
    if (word != "--help" && word != "-h") continue;
    print(stdout, help);
    return 0;
  }
  if (words.empty() || words.front() != "doctor") return wrong_usage();
  return doctor({words.begin() + 1, words.end()});
}

}  // namespace
}  // namespace flotilla::cli

int main(int count, char** words) {
  return flotilla::cli::run({words + 1, words + count});
}
