// Linux calls that Node lacks, off the event loop.
#include <errno.h>
#include <malloc.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <unistd.h>

#include <memory>

#include "common/napi.h"
#include "linux/batch.h"
#include "linux/mount.h"
#include "linux/wire.h"

namespace whittle {

namespace {

constexpr size_t kMaxPathBytes = 4096;
constexpr size_t kMaxLowers = 500;  // the kernel's own bound

/** syncfs(fd): writes back the whole filesystem that holds `fd`; rejects with the errno's name as code. */
napi_value SyncFs(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 1);
    const int fd = GetDescriptor(env, arguments[0], "fd");
    return RunFunction(env, "whittle:syncfs", [fd] {
      if (syncfs(fd) != 0) ThrowErrno(errno, "syncfs");
    });
  });
}

/** What runBatch and runBatchNow are given. */
struct BatchCall {
  int root;
  Bytes commands;
  bool walk_only;
  Bytes results;
};

BatchCall GetBatchCall(napi_env env, const Arguments& arguments) {
  return {GetDescriptor(env, arguments[0], "rootFd"), GetBytes(env, arguments[1], "commands"), GetBoolean(env, arguments[2], "walkOnly"),
          GetBytes(env, arguments[3], "results")};
}

/** The size of what is in the caller's buffer, or what did not fit there. */
napi_value ResultsOf(napi_env env, const WireWriter& results) {
  if (results.IsInRoom()) return MakeNumber(env, static_cast<double>(results.size()));
  return MakeBuffer(env, results.data(), results.size());
}

/**
 * runBatch(rootFd, commands, walkOnly, results): runs `commands`, which must not change meanwhile. Results that fit into
 * the buffer `results` are put there, and it resolves to their size; otherwise it resolves to a new Buffer.
 */
napi_value RunBatchAsync(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 4);
    const BatchCall call = GetBatchCall(env, arguments);
    auto results = std::make_shared<WireWriter>(call.results.data, call.results.size);
    const auto execute = [=] { RunBatch(call.root, call.walk_only, call.commands.data, call.commands.size, results.get()); };
    const auto result = [=](napi_env result_env) { return ResultsOf(result_env, *results); };
    return RunFunction(env, "whittle:batch", execute, result, {arguments[1], arguments[3]});
  });
}

/** runBatchNow(rootFd, commands, walkOnly, results): the same on this thread, for little that is quick. */
napi_value RunBatchNow(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 4);
    const BatchCall call = GetBatchCall(env, arguments);
    WireWriter results(call.results.data, call.results.size);
    RunBatch(call.root, call.walk_only, call.commands.data, call.commands.size, &results);
    return ResultsOf(env, results);
  });
}

/** flock(fd, exclusive): takes the lock without waiting; false when somebody else has it. */
napi_value Flock(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 2);
    const int fd = GetDescriptor(env, arguments[0], "fd");
    const bool exclusive = GetBoolean(env, arguments[1], "exclusive");
    int result;
    do {
      result = flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB);
    } while (result != 0 && errno == EINTR);
    if (result != 0 && errno != EWOULDBLOCK) ThrowErrno(errno, "flock");
    napi_value taken;
    Check(env, napi_get_boolean(env, result == 0, &taken));
    return taken;
  });
}

/** mountOverlay(target, lowers, upper, work): absolute paths, topmost layer first; empty upper and work for read-only. */
napi_value MountOverlayAsync(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 4);
    OverlayMount mount;
    mount.target = GetString(env, arguments[0], "target", kMaxPathBytes);
    for (napi_value lower : GetArray(env, arguments[1], "lowers", kMaxLowers)) mount.lowers.push_back(GetString(env, lower, "lower", kMaxPathBytes));
    mount.upper = GetString(env, arguments[2], "upper", kMaxPathBytes);
    mount.work = GetString(env, arguments[3], "work", kMaxPathBytes);
    return RunFunction(env, "whittle:mount", [mount] {
      std::string detail;
      const int error = MountOverlay(mount, &detail);
      if (error != 0) ThrowErrno(error, detail.empty() ? "mount" : "mount: " + detail);
    });
  });
}

/** unmount(target): rejects with EBUSY while it is in use. Links are not followed. */
napi_value Unmount(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 1);
    const std::string target = GetString(env, arguments[0], "target", kMaxPathBytes);
    return RunFunction(env, "whittle:umount", [target] {
      if (umount2(target.c_str(), UMOUNT_NOFOLLOW) != 0) ThrowErrno(errno, "umount");
    });
  });
}

}  // namespace

void RegisterLinux(napi_env env, napi_value exports) {
#ifdef M_ARENA_MAX
  // One heap for all threads instead of one for each: a device has little memory, and its pool threads seldom allocate at
  // the same time. Extracting a 236 MB image peaks at 128 MiB this way and at 150 MiB otherwise.
  mallopt(M_ARENA_MAX, 1);
#endif
  SetFunction(env, exports, "syncfs", SyncFs);
  SetFunction(env, exports, "runBatch", RunBatchAsync);
  SetFunction(env, exports, "runBatchNow", RunBatchNow);
  SetFunction(env, exports, "flock", Flock);
  SetFunction(env, exports, "mountOverlay", MountOverlayAsync);
  SetFunction(env, exports, "unmount", Unmount);
}

}  // namespace whittle
