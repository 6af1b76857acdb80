#include "state/directory.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "state/file.hpp"
#include "state/lmdb.hpp"

namespace flotilla::state {
namespace {

constexpr std::string_view link_name = "state";
constexpr std::string_view new_link_name = "state.link.tmp";
constexpr std::string_view prefix = "state.";
constexpr std::string_view copy_prefix = "state.copy-";
constexpr std::string_view compacted_prefix = "state.compact-";

Error error_at(std::string_view doing, const std::filesystem::path& path, const std::error_code& code) {
  return lmdb::error_of(code.value(), fmt::format("{} {}", doing, path.string()));
}

std::string name_of(std::uint64_t number) {
  return fmt::format("{}{}", prefix, number);
}

/// state.N, nothing else.
std::optional<std::uint64_t> number_of(std::string_view name) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  std::uint64_t number = 0;
  const auto [end, code] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (code != std::errc() || end != name.data() + name.size() || number == 0) return std::nullopt;
  return number;
}

/// state.N, state.N.tmp, state.copy-N.tmp, state.compact-N.tmp and the link that was to be; what else is called so may
/// be the user's own.
bool is_ours(std::string_view name) {
  constexpr std::string_view end = ".tmp";
  if (name == new_link_name || number_of(name)) return true;
  if (!name.ends_with(end)) return false;
  name.remove_suffix(end.size());
  for (const std::string_view made : {copy_prefix, compacted_prefix}) {
    if (name.starts_with(made)) return number_of(fmt::format("{}{}", prefix, name.substr(made.size()))).has_value();
  }
  return number_of(name).has_value();
}

/// The names of all of ours but the one kept, sorted.
std::vector<std::string> others(const std::filesystem::path& data_dir, std::string_view kept, std::error_code& code) {
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator at(data_dir, code), end; !code && at != end; at.increment(code)) {
    const std::string name = at->path().filename();
    if (is_ours(name) && name != kept) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Result<void> sweep(const std::filesystem::path& data_dir, std::string_view kept) {
  std::error_code code;
  for (const std::string& name : others(data_dir, kept, code)) {
    if (!code) std::filesystem::remove_all(data_dir / name, code);
  }
  if (code) return fail(error_at("clear", data_dir, code));
  return {};
}

}  // namespace

std::filesystem::path Directory::numbered(std::uint64_t number) const {
  return data_dir_ / name_of(number);
}

std::filesystem::path Directory::incoming() const {
  return data_dir_ / fmt::format("{}{}.tmp", prefix, first_number_ + 1);
}

std::filesystem::path Directory::outgoing(std::uint64_t number) const {
  return data_dir_ / fmt::format("{}{}.tmp", copy_prefix, number);
}

std::filesystem::path Directory::compacted(std::uint64_t number) const {
  return data_dir_ / fmt::format("{}{}.tmp", compacted_prefix, number);
}

Result<Directory> Directory::create(const std::filesystem::path& data_dir, bool sync) {
  Directory directory(data_dir, sync, 1);
  std::error_code code;
  std::filesystem::create_directory(directory.path(), code);
  if (!code) std::filesystem::permissions(directory.path(), std::filesystem::perms::owner_all, code);
  if (code) return fail(error_at("make", directory.path(), code));
  if (auto linked = directory.link_to(1); !linked) return fail(linked.error());
  return directory;
}

Result<Directory::Found> Directory::look(const std::filesystem::path& data_dir) {
  std::error_code code;
  const std::filesystem::path link = data_dir / link_name;
  const auto status = std::filesystem::symlink_status(link, code);
  if (status.type() == std::filesystem::file_type::not_found) {
    return fail(Errc::not_found, fmt::format("{} is missing", link.string()));
  }
  if (code) return fail(error_at("look at", link, code));
  const std::filesystem::path target = std::filesystem::read_symlink(link, code);
  const auto number = code ? std::nullopt : number_of(target.native());
  if (!number) return fail(Errc::damaged, fmt::format("{} is not a link to state.N", link.string()));
  const std::string kept = name_of(*number);
  if (!std::filesystem::is_directory(data_dir / kept, code)) {
    return fail(Errc::damaged, fmt::format("{} leads to {}, which is missing", link.string(), target.string()));
  }
  Found found{*number, others(data_dir, kept, code)};
  if (code) return fail(error_at("look at", data_dir, code));
  return found;
}

Result<Directory> Directory::open(const std::filesystem::path& data_dir, bool sync) {
  const auto found = look(data_dir);
  if (!found) return fail(found.error());
  Directory directory(data_dir, sync, found->number);
  // A killed process may have left the link as it is and not yet durable: what it led to before goes only when that
  // cannot come back.
  if (sync) {
    if (auto synced = sync_directory(data_dir); !synced) return fail(synced.error());
  }
  if (auto swept = sweep(data_dir, name_of(found->number)); !swept) return fail(swept.error());
  return directory;
}

Result<void> Directory::remove(const std::filesystem::path& data_dir) {
  std::error_code code;
  std::filesystem::remove_all(data_dir / link_name, code);
  if (code) return fail(error_at("remove", data_dir / link_name, code));
  return sweep(data_dir, {});
}

Result<void> Directory::link_to(std::uint64_t number) const {
  std::error_code code;
  const std::filesystem::path fresh = data_dir_ / new_link_name;
  std::filesystem::remove(fresh, code);
  if (!code) std::filesystem::create_directory_symlink(numbered(number).filename(), fresh, code);
  if (!code) std::filesystem::rename(fresh, data_dir_ / link_name, code);
  if (code) return fail(error_at("link to", numbered(number), code));
  return sync_ ? sync_directory(data_dir_) : Result<void>();
}

Result<Directory::Staged> Directory::stage(const std::filesystem::path& made) {
  const Staged staged{staged_ + 1, numbered(staged_ + 1)};
  std::error_code code;
  std::filesystem::remove_all(staged.path, code);
  if (!code) std::filesystem::rename(made, staged.path, code);
  if (code) return fail(error_at("rename to", staged.path, code));
  staged_ = staged.number;
  if (sync_) {
    if (auto synced = sync_directory(data_dir_); !synced) return fail(synced.error());
  }
  return staged;
}

Result<void> Directory::publish(const Staged& staged) {
  if (auto linked = link_to(staged.number); !linked) return linked;
  replaced_ = std::exchange(number_, staged.number);
  return {};
}

void Directory::remove_replaced() {
  std::error_code code;
  std::filesystem::remove_all(numbered(replaced_), code);
}

void Directory::discard(const Staged& staged) {
  std::error_code code;
  std::filesystem::remove_all(staged.path, code);
}

}  // namespace flotilla::state
