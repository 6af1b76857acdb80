// A client of etcd: one connection, all callers' requests on it, one thread.
//
//   etcd_worker --endpoint HOST:PORT
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <grpcpp/grpcpp.h>

#include <fmt/format.h>

#include "etcd.grpc.pb.h"
#include "workload.hpp"

namespace {

using namespace flotilla::bench;
using namespace etcdserverpb;

/// A request on its way; deletes itself.
class Pending {
 public:
  explicit Pending(Target::Done done) : done_(std::move(done)) {}
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;
  virtual ~Pending() = default;
  void end(bool ok) { done_(ok && status.ok() && succeeded()); }
  virtual bool succeeded() const = 0;

  grpc::ClientContext context;
  grpc::Status status;

 private:
  Target::Done done_;
};

template <class Response, class Check>
class PendingResponse final : public Pending {
 public:
  PendingResponse(Target::Done done, Check check) : Pending(std::move(done)), check_(std::move(check)) {}
  bool succeeded() const override { return check_(response); }

  Response response;
  std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> reader;

 private:
  Check check_;
};

class EtcdTarget final : public Target {
 public:
  explicit EtcdTarget(const std::string& endpoint)
      : stub_(KV::NewStub(grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials()))) {
    thread_ = std::thread([this] {
      void* tag = nullptr;
      bool ok = false;
      while (queue_.Next(&tag, &ok)) {
        const std::unique_ptr<Pending> pending(static_cast<Pending*>(tag));
        pending->end(ok);
      }
    });
  }
  ~EtcdTarget() override {
    queue_.Shutdown();
    thread_.join();
  }

  bool offers(Kind) const override { return true; }
  bool blocking(Kind) const override { return false; }

  void start(const Operation& operation, Done done) override {
    switch (operation.kind) {
      case Kind::put: return put(operation, std::move(done));
      case Kind::put_ten:
      case Kind::cas: return txn(operation, std::move(done));
      case Kind::get:
      case Kind::get_local:
      case Kind::scan: return range(operation, std::move(done));
    }
  }

 private:
  template <class Response, class Check, class Begin>
  void ask(Done done, Check check, Begin begin) {
    auto pending = std::make_unique<PendingResponse<Response, Check>>(std::move(done), std::move(check));
    pending->reader = begin(&pending->context);
    auto* const mine = pending.release();  // the queue gives it back
    mine->reader->Finish(&mine->response, &mine->status, static_cast<Pending*>(mine));
  }

  void put(const Operation& operation, Done done) {
    PutRequest request;
    request.set_key(operation.keys[0]);
    request.set_value(operation.value);
    ask<PutResponse>(
        std::move(done), [](const PutResponse&) { return true; },
        [&](grpc::ClientContext* context) { return stub_->AsyncPut(context, request, &queue_); });
  }

  void txn(const Operation& operation, Done done) {
    TxnRequest request;
    if (operation.kind == Kind::cas) {
      Compare* compare = request.add_compare();
      compare->set_result(Compare::EQUAL);
      compare->set_target(Compare::VALUE);
      compare->set_key(operation.keys[0]);
      compare->set_value(operation.expected);
    }
    // A transaction must not name a key twice.
    for (std::size_t i = 0; i < operation.keys.size(); ++i) {
      const auto begin = operation.keys.begin();
      const auto at = begin + static_cast<std::ptrdiff_t>(i);
      if (std::find(begin, at, *at) != at) continue;
      PutRequest* put = request.add_success()->mutable_request_put();
      put->set_key(*at);
      put->set_value(operation.value);
    }
    ask<TxnResponse>(
        std::move(done), [](const TxnResponse& response) { return response.succeeded(); },
        [&](grpc::ClientContext* context) { return stub_->AsyncTxn(context, request, &queue_); });
  }

  void range(const Operation& operation, Done done) {
    RangeRequest request;
    request.set_key(operation.keys[0]);
    request.set_serializable(operation.kind != Kind::get);
    if (operation.kind == Kind::scan) {
      request.set_range_end(std::string(1, '\0'));  // to the end
      request.set_limit(static_cast<std::int64_t>(scan_length));
    }
    ask<RangeResponse>(
        std::move(done), [](const RangeResponse& response) { return response.kvs_size() > 0; },
        [&](grpc::ClientContext* context) { return stub_->AsyncRange(context, request, &queue_); });
  }

  std::unique_ptr<KV::Stub> stub_;
  grpc::CompletionQueue queue_;
  std::thread thread_;
};

}  // namespace

int main(int count, char** words) {
  if (count != 3 || std::string_view(words[1]) != "--endpoint") {
    fmt::print(stderr, "usage: etcd_worker --endpoint HOST:PORT\n");
    return 2;
  }
  EtcdTarget target(words[2]);
  return serve(target);
}
