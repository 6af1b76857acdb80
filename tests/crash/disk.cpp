#include "disk.hpp"

#include <algorithm>
#include <stdexcept>

#include <fcntl.h>
#include <fnmatch.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

namespace crash {

// ---- images

std::uint64_t Image::hash() const {
  std::uint64_t hash = 0;
  const auto add = [&hash](std::string_view bytes) { hash = XXH3_64bits_withSeed(bytes.data(), bytes.size(), hash); };
  for (const auto& [path, node] : nodes) {
    add(path);
    add(node.target);
    if (node.content) add(*node.content);
  }
  return hash;
}

void Image::write_to(const std::filesystem::path& root) const {
  const auto check = [](bool done, const std::string& path) {
    if (!done) throw std::runtime_error("cannot write " + path);
  };
  check(::mkdir(root.c_str(), 0700) == 0, root);
  for (const auto& [relative, node] : nodes) {
    const std::string path = root / relative;
    switch (node.type) {
      case InodeType::directory: check(::mkdir(path.c_str(), 0700) == 0, path); break;
      case InodeType::link: check(::symlink(node.target.c_str(), path.c_str()) == 0, path); break;
      case InodeType::file: {
        const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        check(descriptor >= 0, path);
        const std::string& bytes = *node.content;
        check(::pwrite(descriptor, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()), path);
        ::close(descriptor);
        break;
      }
    }
  }
}

// ---- the disk

bool matches(const std::string& name, const std::string& pattern) {
  return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

Disk::Disk() {
  auto root = std::make_shared<Inode>();
  root->type = InodeType::directory;
  root->name = "/";
  inodes_.push_back(std::move(root));
}

Disk::Disk(const Image& image) : Disk() {
  std::map<std::string, InodeId> directories{{"", root_inode}};
  for (const auto& [path, node] : image.nodes) {
    if (node.inode >= inodes_.size()) inodes_.resize(node.inode + 1);
    const std::size_t slash = path.rfind('/');
    const std::string parent = slash == std::string::npos ? "" : path.substr(0, slash);
    const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
    auto inode = std::make_shared<Inode>();
    inode->type = node.type;
    inode->name = name;
    inode->target = node.target;
    if (node.content) inode->durable = inode->visible = std::make_shared<std::string>(*node.content);
    inodes_[node.inode] = std::move(inode);
    if (node.type == InodeType::directory) directories.emplace(path, node.inode);
    Inode& directory = *inodes_[directories.at(parent)];
    directory.durable_names[name] = directory.visible_names[name] = node.inode;
  }
}

Disk::Inode& Disk::change(InodeId inode) {
  auto& shared = inodes_.at(inode);
  if (shared.use_count() > 1) shared = std::make_shared<Inode>(*shared);
  return *shared;
}

void Disk::change_content(Content& content, const Operation& operation, const Fate& fate, const Disk& disk) {
  if (fate.kind == Fate::Kind::lost) return;
  if (content.use_count() > 1) content = std::make_shared<std::string>(*content);
  if (operation.kind == Operation::Kind::resize) {
    content->resize(operation.offset, '\0');
    return;
  }
  const std::string& bytes = operation.bytes;
  const std::uint64_t end = operation.offset + bytes.size();
  if (content->size() < end) content->resize(end, '\0');
  if (fate.kind == Fate::Kind::whole) {
    content->replace(operation.offset, bytes.size(), bytes);
  } else if (fate.kind == Fate::Kind::stale) {
    // What was synced cannot become another file's any more, where a large block makes its segment grow.
    const std::string& donor = disk.content(fate.donor);
    const std::uint64_t from = std::max(operation.offset, disk.durable_size(operation.inode));
    const std::uint64_t until = std::min<std::uint64_t>(end, donor.size());
    if (from < until) content->replace(from, until - from, donor, from, until - from);
  } else if (fate.kind == Fate::Kind::torn) {
    const std::uint64_t first = operation.offset / sector_bytes;
    for (std::uint64_t sector = first; sector * sector_bytes < end; ++sector) {
      if (!fate.sector(sector - first)) continue;
      const std::uint64_t from = std::max(sector * sector_bytes, operation.offset);
      const std::uint64_t until = std::min((sector + 1) * sector_bytes, end);
      content->replace(from, until - from, bytes, from - operation.offset, until - from);
    }
  }
}

void Disk::change_names(Names& names, const Operation& operation) {
  switch (operation.kind) {
    case Operation::Kind::make: names[operation.name] = operation.inode; break;
    case Operation::Kind::unlink: names.erase(operation.name); break;
    case Operation::Kind::rename:
      // Also if an earlier operation on the old name was lost: the entry carries the file.
      names.erase(operation.name);
      names[operation.new_name] = operation.inode;
      break;
    default: break;
  }
}

void Disk::apply(const OperationPtr& operation, bool in_flight) {
  using Kind = Operation::Kind;
  switch (operation->kind) {
    case Kind::mark: return;
    case Kind::sync: {
      if (in_flight) return;
      Inode& inode = change(operation->inode);
      // A failed sync of a file leaves pages that the kernel calls clean. Names have no such pages: they stay pending.
      if (operation->failed && inode.type == InodeType::directory) return;
      for (const Waiting& one : inode.waiting) {
        if (operation->failed && !one.durable) continue;
        if (inode.type == InodeType::directory) {
          change_names(inode.durable_names, *one.operation);
        } else {
          change_content(inode.durable, *one.operation, {Fate::Kind::whole}, *this);
        }
      }
      inode.waiting.clear();
      return;
    }
    case Kind::make: {
      if (operation->inode >= inodes_.size()) inodes_.resize(operation->inode + 1);
      auto made = std::make_shared<Inode>();
      made->type = operation->type;
      made->name = operation->name;
      made->target = operation->bytes;
      inodes_[operation->inode] = std::move(made);
      [[fallthrough]];
    }
    case Kind::unlink:
    case Kind::rename: {
      Inode& directory = change(operation->directory);
      change_names(directory.visible_names, *operation);
      directory.waiting.push_back({operation, false});
      if (operation->kind == Kind::rename) change(operation->inode).name = operation->new_name;
      return;
    }
    case Kind::write:
    case Kind::resize: {
      Inode& inode = change(operation->inode);
      change_content(inode.visible, *operation, {Fate::Kind::whole}, *this);
      inode.waiting.push_back({operation, operation->durable && !in_flight});
      return;
    }
  }
}

std::vector<Disk::Pending> Disk::pending() const {
  std::vector<Pending> all;
  for (InodeId id = 0; id < inodes_.size(); ++id) {
    if (!inodes_[id]) continue;
    for (const Waiting& one : inodes_[id]->waiting) {
      if (!one.durable) all.push_back({one.operation, id});
    }
  }
  return all;
}

Image Disk::crash(const std::vector<Fate>& fates) const {
  static const Fate whole{Fate::Kind::whole};
  std::vector<std::size_t> first(inodes_.size() + 1, 0);
  std::size_t count = 0;
  for (InodeId id = 0; id < inodes_.size(); ++id) {
    first[id] = count;
    if (!inodes_[id]) continue;
    for (const Waiting& one : inodes_[id]->waiting) count += one.durable ? 0 : 1;
  }
  if (count != fates.size()) throw std::logic_error("one fate for each pending operation");
  const auto each = [&](InodeId id, auto visit) {
    std::size_t at = first[id];
    for (const Waiting& one : inodes_[id]->waiting) visit(*one.operation, one.durable ? whole : fates[at++]);
  };
  return image(
      [&](InodeId id) {
        Names names = inodes_[id]->durable_names;
        each(id, [&](const Operation& operation, const Fate& fate) {
          if (fate.kind != Fate::Kind::lost) change_names(names, operation);
        });
        return names;
      },
      [&](InodeId id) -> std::shared_ptr<const std::string> {
        Content content = inodes_[id]->durable;
        each(id,
             [&](const Operation& operation, const Fate& fate) { change_content(content, operation, fate, *this); });
        return content;
      });
}

Image Disk::visible() const {
  return image([&](InodeId id) { return inodes_[id]->visible_names; },
               [&](InodeId id) { return inodes_[id]->visible; });
}

Image Disk::image(const std::function<Names(InodeId)>& names_of,
                  const std::function<std::shared_ptr<const std::string>(InodeId)>& content_of) const {
  Image image;
  std::vector<std::pair<std::string, InodeId>> directories{{"", root_inode}};
  while (!directories.empty()) {
    const auto [path, directory] = directories.back();
    directories.pop_back();
    for (const auto& [name, id] : names_of(directory)) {
      const std::string full = path.empty() ? name : path + "/" + name;
      Image::Node node{inodes_[id]->type, id, nullptr, inodes_[id]->target};
      if (node.type == InodeType::file) node.content = content_of(id);
      if (node.type == InodeType::directory) directories.emplace_back(full, id);
      image.nodes.emplace(full, std::move(node));
    }
  }
  return image;
}

std::optional<InodeId> Disk::find(std::string_view path, bool follow_last) const {
  InodeId at = root_inode;
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    const std::string name(path.substr(0, slash));
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
    const Inode& directory = *inodes_[at];
    const auto found = directory.visible_names.find(name);
    if (found == directory.visible_names.end()) return std::nullopt;
    InodeId next = found->second;
    if (inodes_[next]->type == InodeType::link && (follow_last || !path.empty())) {
      const auto target = directory.visible_names.find(inodes_[next]->target);  // links lead to their neighbours
      if (target == directory.visible_names.end()) return std::nullopt;
      next = target->second;
    }
    at = next;
  }
  return at;
}

}  // namespace crash
