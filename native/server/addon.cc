// whittle_server: what computing and explaining deltas needs besides.
#if defined(__GLIBC__) || defined(__linux__)
#include <malloc.h>
#endif

#include "common/napi.h"

namespace whittle {
void RegisterMatcher(napi_env env, napi_value exports);
void RegisterEncoder(napi_env env, napi_value exports);
void RegisterStreamDecisions(napi_env env, napi_value exports);
void RegisterMeter(napi_env env, napi_value exports);
}  // namespace whittle

namespace whittle {
namespace {

/** returnFreeMemory(): void. */
napi_value ReturnFreeMemory(napi_env env, napi_callback_info) {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
  return MakeUndefined(env);
}

}  // namespace
}  // namespace whittle

NAPI_MODULE_INIT() {
  return whittle::Guard(env, [&]() -> napi_value {
#ifdef M_MMAP_THRESHOLD
    // What is larger than the pieces that layers are unpacked in gets pages of its own and gives them back. Left alone, the allocator
    // takes ever larger tables from its heap, where what is freed between two others stays: 430 MiB after the files of an 800 MB
    // image, 230 this way. Pages for each piece too would cost half as much system time again.
    mallopt(M_MMAP_THRESHOLD, 300 << 10);
    mallopt(M_TRIM_THRESHOLD, 4 << 20);
#endif
#ifdef M_ARENA_MAX
    // No more heaps than there are: what a thread frees in its own, the others do not take.
    mallopt(M_ARENA_MAX, 1);
#endif
    whittle::SetFunction(env, exports, "returnFreeMemory", whittle::ReturnFreeMemory);
    whittle::RegisterMatcher(env, exports);
    whittle::RegisterEncoder(env, exports);
    whittle::RegisterStreamDecisions(env, exports);
    whittle::RegisterMeter(env, exports);
    return exports;
  });
}
