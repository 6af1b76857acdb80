// A disk as a power loss sees it: what is on the medium, what only the page cache has, and every image that may be
// found afterwards.
//
// Files and directories alike have a durable and a visible state; what lies between is pending, in order. A sync makes
// one file's or one directory's pending operations durable, nothing else: a file's sync says nothing of its name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace crash {

inline constexpr std::uint64_t sector_bytes = 512;

using InodeId = std::uint32_t;
inline constexpr InodeId root_inode = 0;

enum class InodeType : std::uint8_t { file, directory, link };

/// What a workload says while it runs: promises that a later start has to keep, and what it has begun.
enum class MarkKind : std::uint8_t {
  starting,      ///< node::start() is called
  started,       ///< it came back. value: incarnation, second: the newest block that it found
  promised,      ///< every block of the log so far; before that, none after the last of these
  acknowledged,  ///< value: index of a command whose success was told
  committed,     ///< value: index; from now on it may be applied
  installing,    ///< value: index, second: term. A snapshot
  installed,     ///< value: index. It is in force
};

struct Operation {
  enum class Kind : std::uint8_t { make, unlink, rename, write, resize, sync, mark };
  Kind kind{};
  InodeId inode = 0;         ///< what is made, written, resized or synced
  InodeId directory = 0;     ///< where names change
  std::string name;          ///< in that directory
  std::string new_name;      ///< rename, in the same directory
  InodeType type{};          ///< make
  std::uint64_t offset = 0;  ///< write; resize: the new size
  std::string bytes;         ///< write; make: of a link, what it leads to
  bool durable = false;      ///< write through an O_DSYNC descriptor: on the medium when it returns
  bool failed = false;       ///< sync: what was pending is lost, though still to be seen
  MarkKind mark{};
  std::uint64_t value = 0;
  std::uint64_t second = 0;
};
using OperationPtr = std::shared_ptr<const Operation>;

/// What becomes of one pending operation.
struct Fate {
  enum class Kind : std::uint8_t {
    lost,
    whole,
    torn,   ///< of a write: only these sectors
    zeros,  ///< of a write: its length, but no content
    stale,  ///< of a write: its length, with what another file once had there
  };
  Kind kind = Kind::lost;
  std::function<bool(std::uint64_t sector)> sector = {};  ///< torn: which, counted from the write's first
  InodeId donor = 0;                                      ///< stale
};

/// What a power loss leaves: a tree of names, and contents.
struct Image {
  struct Node {
    InodeType type = InodeType::file;
    InodeId inode = 0;
    std::shared_ptr<const std::string> content;  ///< file
    std::string target;                          ///< link
  };
  std::map<std::string, Node> nodes;  ///< by path relative to the root; parents sort before what is in them

  std::uint64_t hash() const;
  void write_to(const std::filesystem::path& root) const;
};

/// Whether a name is what `pattern` says; "*" stands for any characters.
bool matches(const std::string& name, const std::string& pattern);

class Disk {
 public:
  Disk();
  /// Everything in the image is durable.
  explicit Disk(const Image& image);

  /// Takes the next operation; to `in_flight` it is not yet promised anything.
  void apply(const OperationPtr& operation, bool in_flight = false);

  struct Pending {
    OperationPtr operation;
    InodeId of = 0;
  };
  /// In the order in which they were issued within each file or directory. Not those through O_DSYNC.
  std::vector<Pending> pending() const;
  /// One fate for each of pending().
  Image crash(const std::vector<Fate>& fates) const;
  /// What a running process sees.
  Image visible() const;

  /// By the visible names; follows links except the last. nullopt: not there.
  std::optional<InodeId> find(std::string_view path, bool follow_last = false) const;
  InodeId inode_count() const { return static_cast<InodeId>(inodes_.size()); }
  InodeType type(InodeId inode) const { return inodes_[inode]->type; }
  /// The newest name.
  const std::string& name(InodeId inode) const { return inodes_[inode]->name; }
  const std::string& content(InodeId inode) const { return *inodes_[inode]->visible; }
  std::uint64_t durable_size(InodeId inode) const { return inodes_[inode]->durable->size(); }
  /// Of a directory.
  const std::map<std::string, InodeId>& names(InodeId inode) const { return inodes_[inode]->visible_names; }
  bool exists(InodeId inode) const { return inode < inodes_.size() && inodes_[inode] != nullptr; }

 private:
  using Content = std::shared_ptr<std::string>;
  using Names = std::map<std::string, InodeId>;
  struct Waiting {
    OperationPtr operation;
    bool durable = false;
  };
  struct Inode {
    InodeType type = InodeType::file;
    std::string name;
    std::string target;
    Content durable = std::make_shared<std::string>();
    Content visible = std::make_shared<std::string>();
    Names durable_names;
    Names visible_names;
    std::vector<Waiting> waiting;
  };

  Inode& change(InodeId inode);
  static void change_content(Content& content, const Operation& operation, const Fate& fate, const Disk& disk);
  static void change_names(Names& names, const Operation& operation);
  Image image(const std::function<Names(InodeId)>& names_of,
              const std::function<std::shared_ptr<const std::string>(InodeId)>& content_of) const;

  std::vector<std::shared_ptr<Inode>> inodes_;  // shared between copies until one changes
};

}  // namespace crash
