// Task: a move-only nullary function (std::move_only_function is C++23).
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace flotilla {

class Task {
 public:
  Task() = default;
  template <class F>
  requires(!std::is_same_v<std::decay_t<F>, Task>) Task(F&& function)
      : body_(std::make_unique<Body<std::decay_t<F>>>(std::forward<F>(function))) {}  // NOLINT: implicit

  explicit operator bool() const noexcept { return body_ != nullptr; }
  void operator()() { body_->run(); }

 private:
  struct Base {
    virtual ~Base() = default;
    virtual void run() = 0;
  };
  template <class F>
  struct Body final : Base {
    template <class G>
    explicit Body(G&& g) : function(std::forward<G>(g)) {}
    void run() override { function(); }
    F function;
  };
  std::unique_ptr<Base> body_;
};

}  // namespace flotilla
