// Task: a move-only nullary function (std::move_only_function is C++23). What captures no more than four pointers'
// worth stands in it, what is larger is allocated.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace flotilla {

class Task {
 public:
  Task() = default;
  template <class F>
  requires(!std::is_same_v<std::decay_t<F>, Task>) Task(F&& function) {  // NOLINT: implicit
    using Function = std::decay_t<F>;
    if constexpr (fits<Function>) {
      hold(Function(std::forward<F>(function)));
    } else {
      hold(Allocated<Function>{std::make_unique<Function>(std::forward<F>(function))});
    }
  }
  Task(Task&& other) noexcept { take(other); }
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      const Task before = std::move(*this);  // ends last: `other` may be part of what it captured
      take(other);
    }
    return *this;
  }
  ~Task() {
    if (type_ != nullptr) type_->end(place_);
  }

  explicit operator bool() const noexcept { return type_ != nullptr; }
  void operator()() { type_->run(place_); }

 private:
  /// What can be done with a function without knowing what it is.
  struct Type {
    void (*run)(void* function);
    void (*move)(void* from, void* to) noexcept;  ///< ends the one at `from`
    void (*end)(void* function) noexcept;
  };
  template <class F>
  static constexpr Type type_of{
      [](void* function) { (*static_cast<F*>(function))(); },
      [](void* from, void* to) noexcept {
        ::new (to) F(std::move(*static_cast<F*>(from)));
        static_cast<F*>(from)->~F();
      },
      [](void* function) noexcept { static_cast<F*>(function)->~F(); },
  };
  template <class F>
  struct Allocated {
    void operator()() { (*function)(); }
    std::unique_ptr<F> function;
  };

  static constexpr std::size_t place_bytes = 4 * sizeof(void*);
  template <class F>
  static constexpr bool fits = sizeof(F) <= place_bytes &&
                               alignof(F) <= alignof(void*) && std::is_nothrow_move_constructible_v<F>;

  template <class F>
  void hold(F function) {
    static_assert(fits<F>);
    ::new (static_cast<void*>(place_)) F(std::move(function));
    type_ = &type_of<F>;
  }
  void take(Task& other) noexcept {
    type_ = std::exchange(other.type_, nullptr);
    if (type_ != nullptr) type_->move(other.place_, place_);
  }

  alignas(void*) std::byte place_[place_bytes];
  const Type* type_ = nullptr;
};

}  // namespace flotilla
