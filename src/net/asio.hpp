// The only include of Asio, and what Boost 1.74 needs before it with GCC 12 and clang 14.
#pragma once

#include <utility>  // Boost 1.74 uses std::exchange without including it

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
