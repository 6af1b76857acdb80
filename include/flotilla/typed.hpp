// Typed commands: C++ values as arguments and results, by msgpack (https://msgpack.org). Optional: the only header here
// that includes msgpack-c (4.1 or newer).
//
//   flotilla::add_typed(commands, "transfer",
//                       [](flotilla::WriteTxn& txn, std::string_view from, std::string_view to,
//                          std::int64_t cents) -> flotilla::Result<std::int64_t> { ... });
//
//   auto called = db.command("transfer", flotilla::typed::arguments("alice", "bob", 500));
//   flotilla::Result<std::int64_t> left = flotilla::typed::result<std::int64_t>(called.get());
//
// Types: what msgpack-c packs: integers, floats, bool, strings, std::optional, tuple, vector, map, set and so on, and
// structures with MSGPACK_DEFINE. Parameters may be std::string_view (also inside a vector): it points into the entry
// and is valid until the command returns. A result with an unordered container is not the same on all members.
#pragma once

#ifndef MSGPACK_NO_BOOST
#define MSGPACK_NO_BOOST
#endif
#include <cstddef>
#include <functional>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <msgpack.hpp>

#include "flotilla/command.hpp"
#include "flotilla/error.hpp"
#include "flotilla/txn.hpp"
#include "flotilla/types.hpp"

namespace flotilla {
namespace typed {

/// Limits on what is unpacked, whoever sent it: elements of one array or map, bytes of one string, depth of nesting.
inline constexpr std::size_t elements_max = 65'536;
inline constexpr std::size_t string_bytes_max = std::size_t{64} << 20;
inline constexpr std::size_t depth_max = 16;

namespace detail {

/// msgpack-c writes into anything with this function.
struct Sink {
  Bytes bytes;
  void write(const char* from, std::size_t count) { bytes.append(from, count); }
};

template <class T>
Bytes pack(const T& value) {
  Sink sink;
  msgpack::pack(sink, value);
  return std::move(sink.bytes);
}

/// Strings stay where they are, in the buffer that is unpacked.
inline bool by_reference(msgpack::type::object_type, std::size_t, void*) {
  return true;
}

/// Converts one whole msgpack value; false: malformed, over a limit, trailing bytes, or of another type. Views in
/// `value` point into `bytes` and into `zone`.
template <class T>
bool unpack(std::string_view bytes, msgpack::zone& zone, T& value) {
  // No array can have more elements than bytes: a few bytes that claim many get no memory for them.
  const std::size_t elements = bytes.size() < elements_max ? bytes.size() : elements_max;
  const msgpack::unpack_limit limit(elements, elements, string_bytes_max, string_bytes_max, string_bytes_max,
                                    depth_max);
  try {
    std::size_t offset = 0;
    bool referenced = false;
    const msgpack::object object =
        msgpack::unpack(zone, bytes.data(), bytes.size(), offset, referenced, by_reference, nullptr, limit);
    if (offset != bytes.size()) return false;
    object.convert(value);
    return true;
  } catch (const msgpack::unpack_error&) {
    return false;
  } catch (const msgpack::type_error&) {
    return false;
  }
}

template <class F>
struct Signature : Signature<decltype(&F::operator())> {};
template <class R, class... A>
struct Signature<R (*)(WriteTxn&, A...)> {
  using Return = R;
  using Values = std::tuple<std::remove_cvref_t<A>...>;
};
template <class F, class R, class... A>
struct Signature<R (F::*)(WriteTxn&, A...)> : Signature<R (*)(WriteTxn&, A...)> {};
template <class F, class R, class... A>
struct Signature<R (F::*)(WriteTxn&, A...) const> : Signature<R (*)(WriteTxn&, A...)> {};

/// Bytes of memory a zone begins with: enough for the arguments of most commands, which need none.
inline constexpr std::size_t zone_bytes = 256;

template <class Values, std::size_t... I>
Result<void> unpack_all(const Args& args, msgpack::zone& zone, Values& values, std::index_sequence<I...>) {
  if (auto count = args.expect(sizeof...(I)); !count) return count;
  std::size_t bad = 0;
  const bool good = ((unpack(args[I], zone, std::get<I>(values)) || (bad = I + 1, false)) && ...);
  if (good) return {};
  return fail(Errc::invalid_argument, "argument " + std::to_string(bad) + " is not of the type this command takes");
}

}  // namespace detail

/// Packed arguments of one call. Converts to what DB::command takes; must live until that returns.
class Arguments {
 public:
  explicit Arguments(std::vector<Bytes> values) : values_(std::move(values)), views_(values_.begin(), values_.end()) {}
  Arguments(Arguments&&) = default;  // a vector that is moved keeps its elements where they are
  Arguments& operator=(Arguments&&) = default;
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  std::span<const std::string_view> views() const noexcept { return views_; }
  operator std::span<const std::string_view>() const noexcept { return views_; }  // NOLINT: meant to be implicit

 private:
  std::vector<Bytes> values_;
  std::vector<std::string_view> views_;
};

/// Packs the arguments of a typed command, each by itself.
template <class... A>
Arguments arguments(const A&... values) {
  std::vector<Bytes> packed;
  packed.reserve(sizeof...(A));
  (packed.push_back(detail::pack(values)), ...);
  return Arguments(std::move(packed));
}

/// The value a typed command returned. invalid_argument: the bytes are not a T. T = void: they must be empty.
template <class T>
Result<T> result(const Bytes& bytes) {
  static_assert(!std::is_same_v<T, std::string_view>, "the bytes do not outlive the call: take a std::string");
  if constexpr (std::is_void_v<T>) {
    if (bytes.empty()) return {};
  } else {
    msgpack::zone zone(detail::zone_bytes);
    T value{};
    if (detail::unpack(bytes, zone, value)) return value;
  }
  return fail(Errc::invalid_argument, "the command's result is not of the wanted type");
}
/// The same of a call that may have failed: its error, if so.
template <class T>
Result<T> result(const Result<Bytes>& called) {
  if (!called) return fail(called.error());
  return result<T>(*called);
}

}  // namespace typed

/// Registers a function with typed parameters: Result<T>(WriteTxn&, A...), T void or packable. A lambda must not be
/// generic. A call with another number of arguments, or with one that is malformed or of another type, ends with
/// invalid_argument, alike on every member and before `run` is called. Integers must fit their parameter.
template <class F>
Commands& add_typed(Commands& commands, std::string name, F run) {
  using Signature = typed::detail::Signature<F>;
  using Values = typename Signature::Values;
  using Value = typename Signature::Return::value_type;
  static_assert(std::is_same_v<typename Signature::Return, Result<Value>>, "a typed command returns Result<T>");
  return commands.add(std::move(name), [run = std::move(run)](WriteTxn& txn, const Args& args) -> Result<Bytes> {
    msgpack::zone zone(typed::detail::zone_bytes);
    Values values{};
    const auto indexes = std::make_index_sequence<std::tuple_size_v<Values>>();
    if (auto unpacked = typed::detail::unpack_all(args, zone, values, indexes); !unpacked)
      return fail(unpacked.error());
    Result<Value> returned =
        std::apply([&](auto&... value) { return std::invoke(run, txn, std::move(value)...); }, values);
    if (!returned) return fail(std::move(returned.error()));
    if constexpr (std::is_void_v<Value>) {
      return Bytes();
    } else {
      return typed::detail::pack(*returned);
    }
  });
}

}  // namespace flotilla
