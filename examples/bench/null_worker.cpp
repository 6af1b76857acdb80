// A store that does nothing: what the callers themselves cost.
#include "workload.hpp"

namespace {

using namespace flotilla::bench;

class NullTarget final : public Target {
 public:
  bool offers(Kind) const override { return true; }
  bool blocking(Kind) const override { return true; }
  void start(Operation& operation) override { operation.end(true); }
};

}  // namespace

int main() {
  NullTarget target;
  return serve(target);
}
