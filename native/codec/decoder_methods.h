// The methods that every class around a decoder has in JavaScript: segment, begin, next, end.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "codec/decode.h"
#include "common/napi.h"

namespace whittle::codec {

/**
 * `Handle` is the native object of such a class. It has `busy`, which is true while `next` runs on another thread, `kNextName`,
 * the name of that work, `decoder()`, and `static Handle* Take(env, self)`, which gives the idle handle or throws CodedError.
 */
template <typename Handle>
class DecoderMethods {
 public:
  static std::vector<napi_property_descriptor> All() {
    return {Method("segment", Segment), Method("begin", Begin), Method("next", Next), Method("nextNow", NextNow), Method("end", End)};
  }

 private:
  static napi_value Segment(napi_env env, napi_callback_info info) {
    return Guard(env, [&] {
      const Arguments arguments = GetArguments(env, info, 1);
      Handle* handle = Handle::Take(env, arguments.self);
      const Bytes streams = GetBytes(env, arguments[0], "streams");
      handle->decoder().Segment(streams.data, streams.size);
      return MakeUndefined(env);
    });
  }

  static napi_value Begin(napi_env env, napi_callback_info info) {
    return Guard(env, [&] {
      const Arguments arguments = GetArguments(env, info, 1);
      Handle* handle = Handle::Take(env, arguments.self);
      const std::vector<Content> sources = GetContents(env, GetProperty(env, arguments[0], "sources", "file"), "file.sources");
      const uint64_t size = GetInteger(env, GetProperty(env, arguments[0], "sizeBytes", "file"), "file.sizeBytes", 0, kMaxSafeInteger);
      handle->decoder().Begin(sources, size);
      return MakeUndefined(env);
    });
  }

  class NextTask final : public Task {
   public:
    NextTask(Handle* handle, Bytes out) : handle_(handle), out_(out) { handle_->busy = true; }
    void Execute() override { written_ = handle_->decoder().Next(out_.data, out_.size); }
    void Finish(napi_env, bool) override { handle_->busy = false; }
    napi_value Result(napi_env env) override { return MakeNumber(env, static_cast<double>(written_)); }

   private:
    Handle* handle_;
    Bytes out_;
    size_t written_ = 0;
  };

  static napi_value Next(napi_env env, napi_callback_info info) {
    return Guard(env, [&] {
      const Arguments arguments = GetArguments(env, info, 1);
      Handle* handle = Handle::Take(env, arguments.self);
      const Bytes out = GetBytes(env, arguments[0], "out");
      return RunTask(env, Handle::kNextName, std::make_unique<NextTask>(handle, out), {arguments.self, arguments[0]});
    });
  }

  static napi_value NextNow(napi_env env, napi_callback_info info) {
    return Guard(env, [&] {
      const Arguments arguments = GetArguments(env, info, 1);
      Handle* handle = Handle::Take(env, arguments.self);
      const Bytes out = GetBytes(env, arguments[0], "out");
      return MakeNumber(env, static_cast<double>(handle->decoder().Next(out.data, out.size)));
    });
  }

  static napi_value End(napi_env env, napi_callback_info info) {
    return Guard(env, [&] {
      const Arguments arguments = GetArguments(env, info, 0);
      Handle::Take(env, arguments.self)->decoder().End();
      return MakeUndefined(env);
    });
  }
};

}  // namespace whittle::codec
