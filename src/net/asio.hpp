// The only include of Asio, and what Boost 1.74 needs before it with GCC 12 and clang 14.
#pragma once

// The thread sanitizer does not know fences, and GCC 12 says so as an error. They order nothing for us: handlers run on
// one thread, and whoever posts goes through a mutex.
#if defined(__SANITIZE_THREAD__)
#define BOOST_ASIO_DISABLE_FENCED_BLOCK
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BOOST_ASIO_DISABLE_FENCED_BLOCK
#endif
#endif

#include <utility>  // Boost 1.74 uses std::exchange without including it

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
