// whittle_server: what computing and explaining deltas needs besides.
#if defined(__GLIBC__) || defined(__linux__)
#include <malloc.h>
#endif

#include "common/napi.h"

namespace whittle {
void RegisterMatcher(napi_env env, napi_value exports);
void RegisterEncoder(napi_env env, napi_value exports);
void RegisterMeter(napi_env env, napi_value exports);
}  // namespace whittle

NAPI_MODULE_INIT() {
  return whittle::Guard(env, [&]() -> napi_value {
#ifdef M_MMAP_THRESHOLD
    // Tables of a megabyte or more get pages of their own and give them back. Left alone, the allocator takes ever larger ones
    // from its heap, where what is freed between two others stays: 430 MiB after the files of an 800 MB image, 230 this way.
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    mallopt(M_TRIM_THRESHOLD, 4 << 20);
#endif
    whittle::RegisterMatcher(env, exports);
    whittle::RegisterEncoder(env, exports);
    whittle::RegisterMeter(env, exports);
    return exports;
  });
}
