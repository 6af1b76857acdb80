// Log lines: formatted only if somebody listens.
#pragma once

#include <string_view>

#include <fmt/format.h>

#include "flotilla/options.hpp"

namespace flotilla {

/// The sink of Options, or one that prints warnings and errors to standard error.
LogSink log_sink_or_default(LogSink sink);

template <class... A>
void log_line(const LogSink& sink, LogLevel level, fmt::format_string<A...> format, A&&... args) {
  if (sink) sink(level, fmt::format(format, std::forward<A>(args)...));
}

}  // namespace flotilla
