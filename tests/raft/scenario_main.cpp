// test_raft_scenarios [--rewrite] DIRECTORY: runs every *.txt there and compares traces; --rewrite stores the actual
// ones.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "raft/scenario.hpp"

namespace {

bool rewrite = false;
std::filesystem::path directory;

std::string contents(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::filesystem::path> scenarios() {
  std::vector<std::filesystem::path> paths;
  for (const auto& item : std::filesystem::directory_iterator(directory)) {
    if (item.path().extension() == ".txt") paths.push_back(item.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

TEST_SUITE_BEGIN("raft.scenarios");

TEST_CASE("every scenario goes as its file says") {
  const auto paths = scenarios();
  REQUIRE(paths.size() >= 150);
  for (const auto& path : paths) {
    const std::string name = path.filename().string();
    SUBCASE(name.c_str()) {
      const std::string expected = contents(path);
      const std::string actual = flotilla::raft::testing::Scenario().run(expected);
      if (rewrite && actual != expected) std::ofstream(path) << actual;
      if (!rewrite) CHECK(actual == expected);
    }
  }
}

TEST_SUITE_END();

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--rewrite") {
      rewrite = true;
    } else if (argument[0] != '-') {
      directory = argument;
    }
  }
  return directory.empty() ? 2 : context.run();
}
