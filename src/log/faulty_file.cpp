#include "log/faulty_file.hpp"

#include <utility>

#include <sys/uio.h>

namespace flotilla::log {

void FaultyFileSystem::set_fault(const Fault& fault) {
  fault_ = fault;
  calls_ = 0;
  struck_ = false;
}

FaultyFileSystem::Verdict FaultyFileSystem::count_call(bool takes_space) {
  const std::uint64_t call = calls_++;
  if (call < fault_.at || (fault_.error == Errc::disk_full && !takes_space)) return Verdict::passes;
  const bool first = !struck_.exchange(true);
  if (!first && !fault_.from_then_on) return Verdict::passes;
  return fault_.partly && first ? Verdict::fails_partly : Verdict::fails;
}

tl::unexpected<Error> FaultyFileSystem::error_of(const char* call, const std::string& path) const {
  return fail(fault_.error, std::string(call) + " " + path + ": made to fail");
}

template <class Call>
auto FaultyFileSystem::guard(const char* name, const std::string& path, Call call, bool takes_space)
    -> decltype(call()) {
  const Verdict verdict = count_call(takes_space);
  if (verdict == Verdict::passes) return call();
  if (verdict == Verdict::fails_partly) static_cast<void>(call());
  return error_of(name, path);
}

class FaultyFileSystem::Handle final : public File {
 public:
  Handle(FaultyFileSystem& files, std::unique_ptr<File> inner, std::string path)
      : files_(files), inner_(std::move(inner)), path_(std::move(path)) {}

  Result<void> write_at(std::uint64_t offset, const iovec* parts, int count) override {
    const Verdict verdict = files_.count_call(true);
    if (verdict == Verdict::passes) return inner_->write_at(offset, parts, count);
    if (verdict == Verdict::fails_partly) {
      std::string bytes;
      for (int at = 0; at < count; ++at) bytes.append(static_cast<const char*>(parts[at].iov_base), parts[at].iov_len);
      const iovec half{bytes.data(), bytes.size() / 2};
      static_cast<void>(inner_->write_at(offset, &half, 1));
    }
    return files_.error_of("write", path_);
  }
  Result<std::string> read_at(std::uint64_t offset, std::size_t count) override {
    return files_.guard("read", path_, [&] { return inner_->read_at(offset, count); });
  }
  Result<void> sync() override {
    return files_.guard("sync", path_, [&] { return inner_->sync(); });
  }
  Result<std::uint64_t> size() override {
    return files_.guard("stat", path_, [&] { return inner_->size(); });
  }
  Result<void> allocate(std::uint64_t bytes) override {
    const bool takes_space = true;
    return files_.guard(
        "allocate", path_, [&] { return inner_->allocate(bytes); }, takes_space);
  }

 private:
  FaultyFileSystem& files_;
  std::unique_ptr<File> inner_;
  const std::string path_;
};

Result<std::unique_ptr<File>> FaultyFileSystem::open(const std::string& path, Mode mode) {
  const bool takes_space = mode == Mode::create;
  Result<std::unique_ptr<File>> file = guard(
      "open", path, [&] { return inner_.open(path, mode); }, takes_space);
  if (!file) return file;
  return std::unique_ptr<File>(std::make_unique<Handle>(*this, std::move(*file), path));
}

Result<void> FaultyFileSystem::rename(const std::string& from, const std::string& to) {
  return guard("rename", from, [&] { return inner_.rename(from, to); });
}

Result<void> FaultyFileSystem::remove(const std::string& path) {
  return guard("remove", path, [&] { return inner_.remove(path); });
}

Result<void> FaultyFileSystem::sync_directory(const std::string& directory) {
  return guard("sync directory", directory, [&] { return inner_.sync_directory(directory); });
}

Result<void> FaultyFileSystem::make_directory(const std::string& path) {
  return guard("make directory", path, [&] { return inner_.make_directory(path); });
}

Result<std::vector<std::string>> FaultyFileSystem::list(const std::string& directory) {
  return guard("list", directory, [&] { return inner_.list(directory); });
}

Result<bool> FaultyFileSystem::exists(const std::string& path) {
  return guard("exists", path, [&] { return inner_.exists(path); });
}

}  // namespace flotilla::log
