#include "images.hpp"

#include <algorithm>

namespace crash {
namespace {

using Kind = Operation::Kind;
using Pending = std::vector<Disk::Pending>;
using Fates = std::vector<Fate>;

constexpr std::uint64_t lmdb_page_bytes = 4096;
constexpr std::array<std::string_view, rules> names{"all",  "synced", "single", "subset", "length",
                                                    "torn", "names",  "stale",  "damage", "killed"};

bool is_name(const Disk::Pending& pending) {
  const Kind kind = pending.operation->kind;
  return kind == Kind::make || kind == Kind::unlink || kind == Kind::rename;
}
bool is_write(const Disk::Pending& pending) {
  return pending.operation->kind == Kind::write;
}

Fates all_of(const Pending& pending, Fate::Kind kind) {
  return Fates(pending.size(), Fate{kind});
}

/// The first few sectors, or any.
Fate tear(Random& random, std::uint64_t bytes) {
  const std::uint64_t sectors = (bytes + sector_bytes - 1) / sector_bytes;
  if (random.one_in(2)) {
    const std::uint64_t first = random.below(sectors + 1);
    return {Fate::Kind::torn, [first](std::uint64_t sector) { return sector < first; }};
  }
  const std::uint64_t seed = random();
  return {Fate::Kind::torn, [seed](std::uint64_t sector) { return mixed(seed, sector) % 2 == 0; }};
}

Fates subset(const Pending& pending, Random& random) {
  const std::uint64_t of_four = 1 + random.below(3);
  Fates fates;
  for (const Disk::Pending& one : pending) {
    if (is_write(one) && random.one_in(6)) {
      fates.push_back(tear(random, one.operation->bytes.size()));
    } else {
      fates.push_back({random.below(4) < of_four ? Fate::Kind::whole : Fate::Kind::lost});
    }
  }
  return fates;
}

Fates of_lengths(const Pending& pending, Random& random) {
  Fates fates = all_of(pending, Fate::Kind::whole);
  for (std::size_t i = 0; i < pending.size(); ++i) {
    if (is_write(pending[i]) && !random.one_in(3)) fates[i].kind = Fate::Kind::zeros;
  }
  return fates;
}

Fates of_torn(const Pending& pending, Random& random) {
  Fates fates = all_of(pending, Fate::Kind::whole);
  std::vector<std::size_t> writes;
  for (std::size_t i = 0; i < pending.size(); ++i) {
    if (is_write(pending[i])) writes.push_back(i);
  }
  if (writes.empty()) return fates;
  const std::size_t which = random.one_in(3) ? writes[random.below(writes.size())] : writes.back();
  fates[which] = tear(random, pending[which].operation->bytes.size());
  return fates;
}

Fates of_names(const Pending& pending, Random& random) {
  const std::uint64_t way = random.below(3);
  Fates fates;
  for (const Disk::Pending& one : pending) {
    bool kept = way == 1 ? is_name(one) : !is_name(one);
    if (way == 2 && is_name(one)) kept = random.one_in(2);
    fates.push_back({kept ? Fate::Kind::whole : Fate::Kind::lost});
  }
  return fates;
}

/// Another file of the log, perhaps one that has no name any more: its blocks may have been given to this one.
InodeId donor_for(const Disk& disk, InodeId inode, Random& random) {
  std::vector<InodeId> donors;
  for (InodeId id = 0; id < disk.inode_count(); ++id) {
    if (id == inode || !disk.exists(id) || disk.type(id) != InodeType::file) continue;
    if (matches(disk.name(id), "*.seg")) donors.push_back(id);
  }
  return donors.empty() ? inode : donors[random.below(donors.size())];
}

Fates of_stale(const Disk& disk, const Pending& pending, Random& random) {
  Fates fates = all_of(pending, Fate::Kind::whole);
  for (std::size_t i = 0; i < pending.size(); ++i) {
    if (!is_write(pending[i]) || random.one_in(4)) continue;
    if (disk.durable_size(pending[i].of) >= pending[i].operation->offset + pending[i].operation->bytes.size()) {
      fates[i].kind = Fate::Kind::lost;
      continue;
    }
    const InodeId donor = donor_for(disk, pending[i].of, random);
    fates[i] = donor == pending[i].of ? Fate{Fate::Kind::lost} : Fate{Fate::Kind::stale, {}, donor};
  }
  return fates;
}

// ---- damage

/// How much of a file is covered by checksums of ours, or made anew from what is. LMDB's pages have none.
std::uint64_t covered_bytes(const std::string& path, std::uint64_t bytes) {
  const std::string name = path.substr(path.rfind('/') + 1);
  if (name == "data.mdb") return std::min(bytes, 2 * lmdb_page_bytes);
  return matches(name, "*.seg") || name == "node" || name == "checkpoint" ? bytes : 0;
}

/// A bit flipped, a sector lost, or a sector that was meant for elsewhere.
std::string damaged(const std::string& content, std::uint64_t covered, const std::string& other, Random& random,
                    Damage& damage) {
  std::string bytes = content;
  const std::uint64_t at = random.below(covered);
  const std::uint64_t sector = at / sector_bytes * sector_bytes;
  damage.offset = sector;
  damage.bytes = std::min<std::uint64_t>(sector_bytes, bytes.size() - sector);
  switch (random.below(3)) {
    case 0:
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.below(8)));
      damage.offset = at;
      damage.bytes = 1;
      break;
    case 1: bytes.replace(sector, damage.bytes, damage.bytes, '\0'); break;
    default: {
      const std::uint64_t from = random.below(other.size() / sector_bytes + 1) * sector_bytes;
      const std::string taken = other.substr(std::min<std::uint64_t>(from, other.size()), damage.bytes);
      bytes.replace(sector, taken.size(), taken);
    }
  }
  return bytes;
}

std::optional<Damage> do_damage(Image& image, Random& random) {
  std::vector<std::string> paths;
  for (const auto& [path, node] : image.nodes) {
    if (node.content && covered_bytes(path, node.content->size()) > 0) paths.push_back(path);
  }
  if (paths.empty()) return std::nullopt;
  for (int tries = 0; tries < 20; ++tries) {
    Damage damage;
    damage.file = paths[random.below(paths.size())];
    Image::Node& node = image.nodes.at(damage.file);
    damage.inode = node.inode;
    // Mostly where something is: a segment is half zeros.
    const std::string& other = *image.nodes.at(paths[random.below(paths.size())]).content;
    std::string bytes = damaged(*node.content, covered_bytes(damage.file, node.content->size()), other, random, damage);
    if (bytes == *node.content) continue;
    const bool zeros_before = node.content->find_first_not_of('\0', damage.offset) >= damage.offset + damage.bytes;
    if (zeros_before && tries < 15) continue;
    node.content = std::make_shared<const std::string>(std::move(bytes));
    return damage;
  }
  return std::nullopt;
}

std::optional<Fates> fates_of(const Disk& disk, const Pending& pending, Rule rule, Random& random) {
  if (pending.empty() && rule != Rule::all && rule != Rule::damage) return std::nullopt;
  switch (rule) {
    case Rule::synced: return all_of(pending, Fate::Kind::lost);
    case Rule::single: {
      const bool one = random.one_in(2);
      Fates fates = all_of(pending, one ? Fate::Kind::lost : Fate::Kind::whole);
      fates[random.below(fates.size())].kind = one ? Fate::Kind::whole : Fate::Kind::lost;
      return fates;
    }
    case Rule::subset: return subset(pending, random);
    case Rule::length: return of_lengths(pending, random);
    case Rule::torn: return of_torn(pending, random);
    case Rule::names: return of_names(pending, random);
    case Rule::stale: return of_stale(disk, pending, random);
    case Rule::damage: return all_of(pending, random.one_in(2) ? Fate::Kind::whole : Fate::Kind::lost);
    case Rule::all:
    case Rule::killed: break;
  }
  return all_of(pending, Fate::Kind::whole);
}

}  // namespace

std::string_view to_string(Rule rule) {
  return names[static_cast<std::size_t>(rule)];
}

std::optional<Rule> rule_of(std::string_view name) {
  const auto at = std::find(names.begin(), names.end(), name);
  if (at == names.end()) return std::nullopt;
  return static_cast<Rule>(at - names.begin());
}

std::optional<Crash> make_crash(const Disk& before, const Disk& during, Rule rule, Random& random) {
  if (rule == Rule::killed) return Crash{before.visible(), before, std::nullopt};
  const Pending pending = during.pending();
  const auto fates = fates_of(during, pending, rule, random);
  if (!fates) return std::nullopt;
  Crash crash{during.crash(*fates), Disk(), std::nullopt};
  if (rule == Rule::damage) {
    crash.damage = do_damage(crash.image, random);
    if (!crash.damage) return std::nullopt;
  }
  crash.disk = Disk(crash.image);
  return crash;
}

}  // namespace crash
