// Small helpers over node_api.h: checked arguments, C++ exceptions to JavaScript ones, work off the event loop.
//
// A native function is `napi_value F(napi_env, napi_callback_info)`; write its body as
//   return Guard(env, [&]() -> napi_value { ... });
// Inside, throw ArgumentError (becomes a TypeError), CodedError (an Error with `.code`), or any std::exception.
#pragma once

#include <node_api.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/content.h"

namespace whittle {

/** A wrong argument: becomes a TypeError. The message names the argument and what it should be. */
struct ArgumentError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/** A JavaScript exception is already pending; unwinds to Guard, which leaves it be. */
struct PendingException {};

/** Largest integer that a double holds exactly with all its predecessors. */
constexpr uint64_t kMaxSafeInteger = (uint64_t{1} << 53) - 1;

/** Throws unless `status` is napi_ok. */
void Check(napi_env env, napi_status status);

/** Makes a JavaScript Error (with `.code` for a CodedError, TypeError for ArgumentError) of the exception being handled. Call within a catch block. */
napi_value CurrentError(napi_env env);

/** Runs `body` and turns what it throws into a pending JavaScript exception. */
template <typename Body>
napi_value Guard(napi_env env, Body&& body) {
  try {
    return body();
  } catch (const PendingException&) {
    return nullptr;
  } catch (...) {
    napi_value error = CurrentError(env);
    if (error != nullptr) napi_throw(env, error);
    return nullptr;
  }
}

/** `this` and the first `count` arguments (undefined where missing). */
struct Arguments {
  napi_value self = nullptr;
  std::vector<napi_value> values;
  napi_value operator[](size_t index) const { return values[index]; }
};
Arguments GetArguments(napi_env env, napi_callback_info info, size_t count);

/** Checked reads of one value; `name` is what messages call it. All throw ArgumentError. */
uint64_t GetInteger(napi_env env, napi_value value, const std::string& name, uint64_t minimum, uint64_t maximum);
std::string GetString(napi_env env, napi_value value, const std::string& name, size_t max_bytes);
bool GetBoolean(napi_env env, napi_value value, const std::string& name);
int GetDescriptor(napi_env env, napi_value value, const std::string& name);
/** A property of an object; undefined when missing. Throws ArgumentError when `object` is no object. */
napi_value GetProperty(napi_env env, napi_value object, const char* key, const std::string& name);
bool IsUndefined(napi_env env, napi_value value);

/** A view of the bytes of a Buffer or Uint8Array, valid while the value is alive and not detached. */
struct Bytes {
  uint8_t* data = nullptr;
  size_t size = 0;
};
Bytes GetBytes(napi_env env, napi_value value, const std::string& name);
/** A copy of a Float64Array of at most `max_count` numbers. */
std::vector<double> GetDoubles(napi_env env, napi_value value, const std::string& name, size_t max_count);
/** The elements of an Array of at most `max_count` values. */
std::vector<napi_value> GetArray(napi_env env, napi_value value, const std::string& name, size_t max_count);
/** A NativeContent: safe integers, ranges that do not overflow, extents that add up to sizeBytes. */
Content GetContent(napi_env env, napi_value value, const std::string& name);
/** An Array of NativeContent. */
std::vector<Content> GetContents(napi_env env, napi_value value, const std::string& name);

napi_value MakeNumber(napi_env env, double value);
napi_value MakeString(napi_env env, const std::string& value);
napi_value MakeUndefined(napi_env env);
/** A Float64Array with a copy of `values`. */
napi_value MakeDoubles(napi_env env, const std::vector<double>& values);
/** A Buffer with a copy of `size` bytes. */
napi_value MakeBuffer(napi_env env, const void* data, size_t size);
void SetProperty(napi_env env, napi_value object, const char* key, napi_value value);
void SetFunction(napi_env env, napi_value exports, const char* name, napi_callback function);

/** Work off the event loop, whose end settles a promise. */
class Task {
 public:
  virtual ~Task() = default;
  /** On a pool thread. May not touch JavaScript. What it throws rejects the promise. */
  virtual void Execute() = 0;
  /** On the JavaScript thread after Execute, also when it threw (`failed`): release what was locked. */
  virtual void Finish(napi_env, bool /*failed*/) {}
  /** On the JavaScript thread after a successful Execute and Finish: what the promise resolves to. */
  virtual napi_value Result(napi_env env) { return MakeUndefined(env); }
};

/** Starts `task` and returns its promise. `keep_alive` values (wrapped objects, buffers) are not collected before it settles. */
napi_value RunTask(napi_env env, const char* name, std::unique_ptr<Task> task, const std::vector<napi_value>& keep_alive = {});

/** A Task made of two functions: `execute` off the event loop, `result` on it. */
napi_value RunFunction(napi_env env, const char* name, std::function<void()> execute,
                       std::function<napi_value(napi_env)> result = MakeUndefined, const std::vector<napi_value>& keep_alive = {});

/** Ties a C++ object to a JavaScript one of a native class; `tag` proves its type when it is taken back. */
template <typename T>
void WrapObject(napi_env env, napi_value self, const napi_type_tag& tag, std::unique_ptr<T> object) {
  Check(env, napi_type_tag_object(env, self, &tag));
  Check(env, napi_wrap(env, self, object.get(), [](napi_env, void* data, void*) { delete static_cast<T*>(data); }, nullptr, nullptr));
  object.release();
}

/** The C++ object of `self`; ArgumentError when `self` is something else. */
template <typename T>
T* UnwrapObject(napi_env env, napi_value self, const napi_type_tag& tag) {
  bool matches = false;
  napi_valuetype type;
  Check(env, napi_typeof(env, self, &type));
  if (type == napi_object) Check(env, napi_check_object_type_tag(env, self, &tag, &matches));
  if (!matches) throw ArgumentError("method called on an object of another class");
  void* data = nullptr;
  Check(env, napi_unwrap(env, self, &data));
  return static_cast<T*>(data);
}

/** Throws ArgumentError unless the function was called with `new`. */
void RequireNew(napi_env env, napi_callback_info info, const char* class_name);

/** A method of a native class, for DefineClass. */
inline napi_property_descriptor Method(const char* name, napi_callback function, napi_property_attributes attributes = napi_default) {
  return {name, nullptr, function, nullptr, nullptr, nullptr, attributes, nullptr};
}
inline napi_property_descriptor StaticMethod(const char* name, napi_callback function) { return Method(name, function, napi_static); }
/** Defines a class and sets it on `exports`. */
void DefineClass(napi_env env, napi_value exports, const char* name, napi_callback constructor, const std::vector<napi_property_descriptor>& properties);

}  // namespace whittle
