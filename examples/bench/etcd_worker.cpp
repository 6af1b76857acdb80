// A client of etcd: one connection, all callers' requests on it, one thread. (With 4, 16 and 64 connections, on two
// processors: puts of 64 callers at 0.98, 0.89 and 0.78 times the rate, of 256 at 0.97, 0.89 and 0.89.)
//
//   etcd_worker --endpoint HOST:PORT
#include <algorithm>
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
  explicit Pending(Operation& operation) : operation_(operation) {}
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;
  virtual ~Pending() = default;
  bool ended(bool ok) const { return ok && status.ok() && succeeded(); }
  Operation& operation() const { return operation_; }
  virtual bool succeeded() const = 0;

  grpc::ClientContext context;
  grpc::Status status;

 private:
  Operation& operation_;
};

template <class Response, class Check>
class PendingResponse final : public Pending {
 public:
  PendingResponse(Operation& operation, Check check) : Pending(operation), check_(std::move(check)) {}
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
        pending->operation().end(pending->ended(ok));
      }
    });
  }
  ~EtcdTarget() override {
    queue_.Shutdown();
    thread_.join();
  }

  bool offers(Kind) const override { return true; }
  bool blocking(Kind) const override { return false; }

  void start(Operation& operation) override {
    switch (operation.kind) {
      case Kind::put: return put(operation);
      case Kind::put_ten:
      case Kind::cas: return txn(operation);
      case Kind::get:
      case Kind::get_local:
      case Kind::scan: return range(operation);
    }
  }

 private:
  template <class Response, class Check, class Begin>
  void ask(Operation& operation, Check check, Begin begin) {
    auto pending = std::make_unique<PendingResponse<Response, Check>>(operation, std::move(check));
    pending->reader = begin(&pending->context);
    auto* const mine = pending.release();  // the queue gives it back
    mine->reader->Finish(&mine->response, &mine->status, static_cast<Pending*>(mine));
  }

  void put(Operation& operation) {
    PutRequest request;
    request.set_key(operation.keys[0]);
    request.set_value(operation.value.data(), operation.value.size());
    ask<PutResponse>(
        operation, [](const PutResponse&) { return true; },
        [&](grpc::ClientContext* context) { return stub_->AsyncPut(context, request, &queue_); });
  }

  void txn(Operation& operation) {
    TxnRequest request;
    if (operation.kind == Kind::cas) {
      Compare* compare = request.add_compare();
      compare->set_result(Compare::EQUAL);
      compare->set_target(Compare::VALUE);
      compare->set_key(operation.keys[0]);
      compare->set_value(operation.expected.data(), operation.expected.size());
    }
    // A transaction must not name a key twice.
    for (std::size_t i = 0; i < operation.keys.size(); ++i) {
      const auto begin = operation.keys.begin();
      const auto at = begin + static_cast<std::ptrdiff_t>(i);
      if (std::find(begin, at, *at) != at) continue;
      PutRequest* put = request.add_success()->mutable_request_put();
      put->set_key(*at);
      put->set_value(operation.value.data(), operation.value.size());
    }
    ask<TxnResponse>(
        operation, [](const TxnResponse& response) { return response.succeeded(); },
        [&](grpc::ClientContext* context) { return stub_->AsyncTxn(context, request, &queue_); });
  }

  void range(Operation& operation) {
    RangeRequest request;
    request.set_key(operation.keys[0]);
    request.set_serializable(operation.kind != Kind::get);
    if (operation.kind == Kind::scan) {
      // With a limit alone, version 3.4 looks at all keys to the end.
      std::string end;
      set_key(end, number_of(operation.keys[0]) + scan_length);
      request.set_range_end(end);
    }
    ask<RangeResponse>(
        operation, [](const RangeResponse& response) { return response.kvs_size() > 0; },
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
