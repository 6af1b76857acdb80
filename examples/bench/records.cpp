// Writes the records of a Packages index, or of dpkg's status file, as workers load them: key and value of each, with
// four bytes of length before either.
//
//   records INPUT OUTPUT        prints how many records that are, and their bytes
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string_view>

#include <fmt/format.h>

#include "loader.hpp"

namespace {

void write(std::ofstream& out, std::string_view word) {
  char size[4];
  const auto bytes = static_cast<std::uint32_t>(word.size());
  std::memcpy(size, &bytes, sizeof size);
  out.write(size, sizeof size);
  out.write(word.data(), static_cast<std::streamsize>(word.size()));
}

}  // namespace

int main(int count, char** words) {
  if (count != 3) {
    fmt::print(stderr, "usage: records INPUT OUTPUT\n");
    return 2;
  }
  const auto input = catalog::read_input(words[1]);
  if (!input) {
    fmt::print(stderr, "records: {}\n", input.error().message());
    return 1;
  }
  std::ofstream out(words[2], std::ios::binary);
  std::size_t bytes = 0;
  for (const catalog::Record& record : input->records) {
    write(out, record.key);
    write(out, record.text);
    bytes += record.text.size();
  }
  out.close();
  fmt::print("{} {}\n", input->records.size(), bytes);
  return out ? 0 : 1;
}
