// Both names of each call are defined here; with this one of them would be renamed to the other.
#undef _FILE_OFFSET_BITS
#include "recorder.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

namespace crash {
namespace {

/// A file call that this model of a disk does not know would make every verdict worthless.
[[noreturn]] void not_modelled(const char* call) {
  std::fprintf(stderr, "crash: %s is used on a recorded file, but not modelled\n", call);
  std::abort();
}

struct Descriptor {
  InodeId inode = 0;
  bool open = false;
  bool durable = false;  // O_DSYNC
};

class State {
 public:
  // Recursive: remove() is made of the others.
  std::recursive_mutex mutex;
  bool active = false;
  std::string root;
  Disk disk;
  std::vector<OperationPtr> operations;
  std::vector<Descriptor> descriptors;
  IoFault fault;
  std::uint64_t calls = 0;
  bool struck = false;
  std::string ignored;

  void add(Operation operation) {
    auto shared = std::make_shared<const Operation>(std::move(operation));
    disk.apply(shared);
    operations.push_back(std::move(shared));
  }

  /// 0, or how this call fails. `part` is set if it may do only some of its work.
  int next_call(bool* part = nullptr) {
    const std::uint64_t call = calls++;
    const bool now = call == fault.at || (call > fault.at && fault.from_then_on);
    if (!now || (fault.kind == IoFault::Kind::part && part == nullptr)) return 0;
    struck = true;
    if (fault.kind == IoFault::Kind::part) {
      *part = true;
      return 0;
    }
    return fault.code;
  }

  Descriptor* of(int descriptor) {
    if (!active || descriptor < 0 || static_cast<std::size_t>(descriptor) >= descriptors.size()) return nullptr;
    Descriptor& known = descriptors[static_cast<std::size_t>(descriptor)];
    return known.open ? &known : nullptr;
  }
  void opened(int descriptor, InodeId inode, bool durable) {
    if (static_cast<std::size_t>(descriptor) >= descriptors.size()) descriptors.resize(descriptor + 1);
    descriptors[static_cast<std::size_t>(descriptor)] = {inode, true, durable && !ignores(inode)};
  }
  void closed(int descriptor) {
    if (Descriptor* known = of(descriptor)) known->open = false;
  }
  bool ignores(InodeId inode) const { return !ignored.empty() && matches(disk.name(inode), ignored); }

  /// Below the root; nullopt: elsewhere.
  std::optional<std::string> relative(int directory, const char* path) {
    if (!active || path == nullptr) return std::nullopt;
    std::string full = path;
    if (path[0] != '/' && directory != AT_FDCWD) {
      const Descriptor* known = of(directory);
      if (known == nullptr || disk.type(known->inode) != InodeType::directory) return std::nullopt;
      const auto base = path_of(known->inode, root_inode, "");
      if (!base) return std::nullopt;
      return base->empty() ? full : *base + "/" + full;
    }
    full = std::filesystem::absolute(full).lexically_normal();
    if (full.size() > 1 && full.back() == '/') full.pop_back();
    if (full == root) return "";
    if (full.size() <= root.size() || full.compare(0, root.size(), root) != 0 || full[root.size()] != '/') {
      return std::nullopt;
    }
    return full.substr(root.size() + 1);
  }
  std::optional<std::string> path_of(InodeId wanted, InodeId from, const std::string& path) const {
    if (wanted == from) return path;
    for (const auto& [name, inode] : disk.names(from)) {
      const std::string below = path.empty() ? name : path + "/" + name;
      if (inode == wanted) return below;
      if (disk.type(inode) != InodeType::directory) continue;
      if (auto found = path_of(wanted, inode, below)) return found;
    }
    return std::nullopt;
  }

  struct Place {
    InodeId directory = 0;
    std::string name;
  };
  std::optional<Place> place(const std::string& path) const {
    const std::size_t slash = path.rfind('/');
    const auto parent = disk.find(slash == std::string::npos ? "" : path.substr(0, slash), true);
    if (!parent || path.empty()) return std::nullopt;
    return Place{*parent, slash == std::string::npos ? path : path.substr(slash + 1)};
  }
  void made(const std::string& path, InodeType type, std::string target = {}) {
    const auto at = place(path);
    if (!at) not_modelled("a new file in an unknown directory");
    Operation operation;
    operation.kind = Operation::Kind::make;
    operation.inode = disk.inode_count();
    operation.directory = at->directory;
    operation.name = at->name;
    operation.type = type;
    operation.bytes = std::move(target);
    add(std::move(operation));
  }
  void unlinked(const std::string& path) {
    const auto at = place(path);
    if (!at) not_modelled("unlink in an unknown directory");
    Operation operation;
    operation.kind = Operation::Kind::unlink;
    operation.directory = at->directory;
    operation.name = at->name;
    add(std::move(operation));
  }
  void resized(InodeId inode, std::uint64_t size) {
    Operation operation;
    operation.kind = Operation::Kind::resize;
    operation.inode = inode;
    operation.offset = size;
    add(std::move(operation));
  }
};

State& state() {
  static auto* const instance = new State;
  return *instance;
}

template <class Function>
Function next_definition(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}
// The system's own function of this name.
#define CRASH_REAL(name)                                                    \
  (*[] {                                                                    \
    static const auto function = next_definition<decltype(&::name)>(#name); \
    return function;                                                        \
  }())

int fail_with(int code) {
  errno = code;
  return -1;
}

}  // namespace

// ---- the recorder

void Recorder::begin(const std::filesystem::path& root, Disk disk) {
  State& now = state();
  const std::lock_guard lock(now.mutex);
  now.root = root;
  now.disk = std::move(disk);
  now.operations.clear();
  now.descriptors.clear();
  now.calls = 0;
  now.struck = false;
  now.active = true;
}

void Recorder::end() {
  const std::lock_guard lock(state().mutex);
  state().active = false;
  state().fault = {};
}

const std::vector<OperationPtr>& Recorder::operations() {
  return state().operations;
}

void Recorder::mark(MarkKind kind, std::uint64_t value, std::uint64_t second) {
  const std::lock_guard lock(state().mutex);
  if (!state().active) return;
  Operation operation;
  operation.kind = Operation::Kind::mark;
  operation.mark = kind;
  operation.value = value;
  operation.second = second;
  state().add(std::move(operation));
}

void Recorder::set_fault(const IoFault& fault) {
  const std::lock_guard lock(state().mutex);
  state().fault = fault;
}
std::uint64_t Recorder::calls() {
  const std::lock_guard lock(state().mutex);
  return state().calls;
}
bool Recorder::struck() {
  const std::lock_guard lock(state().mutex);
  return state().struck;
}
void Recorder::ignore_syncs(const std::string& pattern) {
  const std::lock_guard lock(state().mutex);
  state().ignored = pattern;
}

// ---- what each call does to the disk

namespace {

int do_open(int directory, const char* path, int flags, mode_t mode) {
  State& now = state();
  if (!now.active) return CRASH_REAL(openat)(directory, path, flags, mode);
  const std::lock_guard lock(now.mutex);
  const auto relative = now.relative(directory, path);
  if (!relative) {
    const int descriptor = CRASH_REAL(openat)(directory, path, flags, mode);
    if (descriptor >= 0) now.closed(descriptor);  // the number was another's
    return descriptor;
  }
  if (const int code = now.next_call(); code != 0) return fail_with(code);
  const bool existed = now.disk.find(*relative).has_value();
  const int descriptor = CRASH_REAL(openat)(directory, path, flags, mode);
  if (descriptor < 0) return descriptor;
  if (!existed) now.made(*relative, InodeType::file);
  const auto inode = now.disk.find(*relative, true);
  if (!inode) not_modelled("open of an unknown file");
  if ((flags & O_TRUNC) != 0 && existed) now.resized(*inode, 0);
  if ((flags & O_APPEND) != 0) not_modelled("O_APPEND");
  now.opened(descriptor, *inode, (flags & O_DSYNC) != 0);
  return descriptor;
}

int do_close(int descriptor) {
  State& now = state();
  if (!now.active) return CRASH_REAL(close)(descriptor);
  const std::lock_guard lock(now.mutex);
  now.closed(descriptor);
  return CRASH_REAL(close)(descriptor);
}

/// A read or write of `parts`; `offset` none: where the descriptor stands.
ssize_t do_write(int descriptor, const iovec* parts, int count, std::optional<off_t> offset) {
  State& now = state();
  const auto real = [&](const iovec* given, int given_count) {
    return offset ? CRASH_REAL(pwritev)(descriptor, given, given_count, *offset)
                  : CRASH_REAL(writev)(descriptor, given, given_count);
  };
  if (!now.active) return real(parts, count);
  std::unique_lock lock(now.mutex);
  const Descriptor* known = now.of(descriptor);
  if (known == nullptr || now.disk.type(known->inode) != InodeType::file) {
    lock.unlock();
    return real(parts, count);
  }
  bool part = false;
  if (const int code = now.next_call(&part); code != 0) return fail_with(code);
  Operation operation;
  operation.kind = Operation::Kind::write;
  operation.inode = known->inode;
  operation.durable = known->durable;
  operation.offset = static_cast<std::uint64_t>(offset ? *offset : ::lseek(descriptor, 0, SEEK_CUR));
  for (int i = 0; i < count; ++i) operation.bytes.append(static_cast<const char*>(parts[i].iov_base), parts[i].iov_len);
  if (part) operation.bytes.resize((operation.bytes.size() + 1) / 2);
  const iovec all{operation.bytes.data(), operation.bytes.size()};
  const ssize_t done = real(&all, 1);
  if (done <= 0) return done;
  operation.bytes.resize(static_cast<std::size_t>(done));
  now.add(std::move(operation));
  return done;
}

/// 0: go on; else how the call fails.
int before_read(int descriptor, bool* part) {
  State& now = state();
  if (!now.active) return 0;
  const std::lock_guard lock(now.mutex);
  return now.of(descriptor) == nullptr ? 0 : now.next_call(part);
}

int do_sync(int descriptor, int (*real)(int)) {
  State& now = state();
  if (!now.active) return real(descriptor);
  const std::lock_guard lock(now.mutex);
  const Descriptor* known = now.of(descriptor);
  if (known == nullptr) return real(descriptor);
  const int code = now.next_call();
  const int done = code != 0 ? fail_with(code) : real(descriptor);
  if (now.ignores(known->inode)) return done;
  Operation operation;
  operation.kind = Operation::Kind::sync;
  operation.inode = known->inode;
  operation.failed = done != 0;
  now.add(std::move(operation));
  return code != 0 ? fail_with(code) : done;
}

int do_resize(int descriptor, off_t size, bool only_grow, const std::function<int()>& real) {
  State& now = state();
  if (!now.active) return real();
  const std::lock_guard lock(now.mutex);
  const Descriptor* known = now.of(descriptor);
  if (known == nullptr) return real();
  if (const int code = now.next_call(); code != 0) return fail_with(code);
  const int done = real();
  if (done != 0) return done;
  const auto wanted = static_cast<std::uint64_t>(size);
  if (!only_grow || wanted > now.disk.content(known->inode).size()) now.resized(known->inode, wanted);
  return done;
}

/// A call on one name below the root: `after` records it.
int do_name(int directory, const char* path, const std::function<int()>& real,
            const std::function<void(State&, const std::string&)>& after) {
  State& now = state();
  if (!now.active) return real();
  const std::lock_guard lock(now.mutex);
  const auto relative = now.relative(directory, path);
  if (!relative) return real();
  if (const int code = now.next_call(); code != 0) return fail_with(code);
  const int done = real();
  if (done == 0) after(now, *relative);
  return done;
}

int do_unlink(int directory, const char* path, int flags) {
  return do_name(
      directory, path, [&] { return CRASH_REAL(unlinkat)(directory, path, flags); },
      [](State& now, const std::string& relative) { now.unlinked(relative); });
}

int do_rename(int from_directory, const char* from, int to_directory, const char* to) {
  State& now = state();
  const auto real = [&] { return CRASH_REAL(renameat)(from_directory, from, to_directory, to); };
  if (!now.active) return real();
  const std::lock_guard lock(now.mutex);
  const auto old_path = now.relative(from_directory, from);
  const auto new_path = now.relative(to_directory, to);
  if (!old_path && !new_path) return real();
  if (!old_path || !new_path) not_modelled("rename into or out of the directory");
  if (const int code = now.next_call(); code != 0) return fail_with(code);
  const auto inode = now.disk.find(*old_path);
  const int done = real();
  if (done != 0) return done;
  const auto old_place = now.place(*old_path);
  const auto new_place = now.place(*new_path);
  if (!inode || !old_place || !new_place || old_place->directory != new_place->directory) {
    not_modelled("rename between directories");
  }
  Operation operation;
  operation.kind = Operation::Kind::rename;
  operation.inode = *inode;
  operation.directory = old_place->directory;
  operation.name = old_place->name;
  operation.new_name = new_place->name;
  now.add(std::move(operation));
  return done;
}

bool recorded(int descriptor) {
  State& now = state();
  if (!now.active) return false;
  const std::lock_guard lock(now.mutex);
  const Descriptor* known = now.of(descriptor);
  return known != nullptr && now.disk.type(known->inode) == InodeType::file;
}

mode_t mode_of(int flags, va_list arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? static_cast<mode_t>(va_arg(arguments, unsigned)) : 0;
}

}  // namespace
}  // namespace crash

// ---- the calls. What is defined here takes the place of the C library's in the whole process.

using namespace crash;

extern "C" {

int openat(int directory, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return do_open(directory, path, flags, mode);
}
int openat64(int directory, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return do_open(directory, path, flags, mode);
}
int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return do_open(AT_FDCWD, path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return do_open(AT_FDCWD, path, flags, mode);
}
int creat(const char* path, mode_t mode) {
  return do_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}
int close(int descriptor) {
  return do_close(descriptor);
}

ssize_t write(int descriptor, const void* bytes, size_t size) {
  const iovec part{const_cast<void*>(bytes), size};
  return recorded(descriptor) ? do_write(descriptor, &part, 1, std::nullopt)
                              : CRASH_REAL(write)(descriptor, bytes, size);
}
ssize_t writev(int descriptor, const iovec* parts, int count) {
  return do_write(descriptor, parts, count, std::nullopt);
}
ssize_t pwrite(int descriptor, const void* bytes, size_t size, off_t offset) {
  const iovec part{const_cast<void*>(bytes), size};
  return do_write(descriptor, &part, 1, offset);
}
ssize_t pwrite64(int descriptor, const void* bytes, size_t size, off64_t offset) {
  const iovec part{const_cast<void*>(bytes), size};
  return do_write(descriptor, &part, 1, offset);
}
ssize_t pwritev(int descriptor, const iovec* parts, int count, off_t offset) {
  return do_write(descriptor, parts, count, offset);
}
ssize_t pwritev64(int descriptor, const iovec* parts, int count, off64_t offset) {
  return do_write(descriptor, parts, count, offset);
}

ssize_t pread(int descriptor, void* bytes, size_t size, off_t offset) {
  bool part = false;
  if (const int code = before_read(descriptor, &part); code != 0) return fail_with(code);
  return CRASH_REAL(pread)(descriptor, bytes, part ? (size + 1) / 2 : size, offset);
}
ssize_t pread64(int descriptor, void* bytes, size_t size, off64_t offset) {
  return pread(descriptor, bytes, size, offset);
}

int fsync(int descriptor) {
  return do_sync(descriptor, CRASH_REAL(fsync));
}
int fdatasync(int descriptor) {
  return do_sync(descriptor, CRASH_REAL(fdatasync));
}
int syncfs(int) noexcept {
  not_modelled("syncfs");
}

int ftruncate(int descriptor, off_t size) noexcept {
  return do_resize(descriptor, size, false, [&] { return CRASH_REAL(ftruncate)(descriptor, size); });
}
int ftruncate64(int descriptor, off64_t size) noexcept {
  return ftruncate(descriptor, size);
}
int fallocate(int descriptor, int mode, off_t offset, off_t size) {
  if (mode != 0 && recorded(descriptor)) not_modelled("fallocate with a mode");
  return do_resize(descriptor, offset + size, true,
                   [&] { return CRASH_REAL(fallocate)(descriptor, mode, offset, size); });
}
int fallocate64(int descriptor, int mode, off64_t offset, off64_t size) {
  return fallocate(descriptor, mode, offset, size);
}
int posix_fallocate(int descriptor, off_t offset, off_t size) {
  const int done = do_resize(descriptor, offset + size, true, [&] {
    const int code = CRASH_REAL(posix_fallocate)(descriptor, offset, size);
    return code == 0 ? 0 : fail_with(code);
  });
  return done == 0 ? 0 : errno;
}
int posix_fallocate64(int descriptor, off64_t offset, off64_t size) {
  return posix_fallocate(descriptor, offset, size);
}
int truncate(const char* path, off_t size) noexcept {
  if (state().active && state().relative(AT_FDCWD, path)) not_modelled("truncate");
  return CRASH_REAL(truncate)(path, size);
}

int rename(const char* from, const char* to) noexcept {
  return do_rename(AT_FDCWD, from, AT_FDCWD, to);
}
int renameat(int from_directory, const char* from, int to_directory, const char* to) noexcept {
  return do_rename(from_directory, from, to_directory, to);
}
int unlink(const char* path) noexcept {
  return do_unlink(AT_FDCWD, path, 0);
}
int rmdir(const char* path) noexcept {
  return do_unlink(AT_FDCWD, path, AT_REMOVEDIR);
}
int unlinkat(int directory, const char* path, int flags) noexcept {
  return do_unlink(directory, path, flags);
}
int remove(const char* path) noexcept {
  struct stat info {};
  if (::lstat(path, &info) != 0) return -1;
  return do_unlink(AT_FDCWD, path, S_ISDIR(info.st_mode) ? AT_REMOVEDIR : 0);
}
int mkdir(const char* path, mode_t mode) noexcept {
  return do_name(
      AT_FDCWD, path, [&] { return CRASH_REAL(mkdir)(path, mode); },
      [](State& now, const std::string& relative) { now.made(relative, InodeType::directory); });
}
int symlink(const char* target, const char* path) noexcept {
  return do_name(
      AT_FDCWD, path, [&] { return CRASH_REAL(symlink)(target, path); },
      [&](State& now, const std::string& relative) { now.made(relative, InodeType::link, target); });
}
int link(const char* from, const char* to) noexcept {
  if (state().active && state().relative(AT_FDCWD, to)) not_modelled("link");
  return CRASH_REAL(link)(from, to);
}
ssize_t sendfile(int to, int from, off_t* offset, size_t count) noexcept {
  if (recorded(to)) not_modelled("sendfile");
  return CRASH_REAL(sendfile)(to, from, offset, count);
}
ssize_t copy_file_range(int from, off64_t* from_offset, int to, off64_t* to_offset, size_t count, unsigned flags) {
  if (recorded(to)) not_modelled("copy_file_range");
  return CRASH_REAL(copy_file_range)(from, from_offset, to, to_offset, count, flags);
}
}
