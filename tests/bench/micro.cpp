// ./dev bench micro: what single steps cost. Each *_bench.cpp beside this file says what it measures.
#include <benchmark/benchmark.h>

BENCHMARK_MAIN();
