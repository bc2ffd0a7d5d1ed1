// Threads for work that falls into pieces.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace whittle {

/** Runs `work`, which takes one piece after the other, in up to `threads` threads, this one among them; throws what any of them throws. */
template <typename Work>
void InParallel(int threads, const Work& work) {
  std::vector<std::exception_ptr> failures(static_cast<size_t>(std::max(threads, 1)));
  const auto guarded = [&](size_t number) {
    try {
      work();
    } catch (...) {
      failures[number] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  others.reserve(failures.size());
  try {
    for (size_t number = 1; number < failures.size(); number++) others.emplace_back(guarded, number);
  } catch (const std::system_error&) {
    // No more threads are to be had: those that there are do all of it.
  }
  guarded(0);
  for (std::thread& other : others) other.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace whittle
