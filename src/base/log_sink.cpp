#include "base/log_sink.hpp"

#include <cstdio>

namespace flotilla {

LogSink log_sink_or_default(LogSink sink) {
  if (sink) return sink;
  return [](LogLevel level, std::string_view line) {
    if (level < LogLevel::warning) return;
    fmt::print(stderr, "flotilla: {}: {}\n", level == LogLevel::error ? "error" : "warning", line);
  };
}

}  // namespace flotilla
