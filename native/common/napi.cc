#include "common/napi.h"

#include <cmath>
#include <cstring>
#include <exception>

namespace whittle {

namespace {

constexpr size_t kMaxExtents = size_t{1} << 20;
constexpr size_t kMaxContents = size_t{1} << 16;

napi_value MakeError(napi_env env, const char* code, const char* message, napi_status (*create)(napi_env, napi_value, napi_value, napi_value*)) {
  napi_value text = nullptr, code_value = nullptr, error = nullptr;
  if (napi_create_string_utf8(env, message, NAPI_AUTO_LENGTH, &text) != napi_ok) return nullptr;
  if (code != nullptr && napi_create_string_utf8(env, code, NAPI_AUTO_LENGTH, &code_value) != napi_ok) return nullptr;
  return create(env, code_value, text, &error) == napi_ok ? error : nullptr;
}

bool IsSafeInteger(double value) { return value >= 0 && value <= static_cast<double>(kMaxSafeInteger) && std::floor(value) == value; }

}  // namespace

void Check(napi_env env, napi_status status) {
  if (status == napi_ok) return;
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending) throw PendingException();
  const napi_extended_error_info* info = nullptr;
  const bool known = napi_get_last_error_info(env, &info) == napi_ok && info != nullptr && info->error_message != nullptr;
  throw std::runtime_error(known ? info->error_message : "Node-API call failed");
}

napi_value CurrentError(napi_env env) {
  try {
    throw;
  } catch (const ArgumentError& error) {
    return MakeError(env, "ERR_INVALID_ARG_VALUE", error.what(), napi_create_type_error);
  } catch (const CodedError& error) {
    return MakeError(env, error.code.c_str(), error.what(), napi_create_error);
  } catch (const std::bad_alloc&) {
    return MakeError(env, "ENOMEM", "out of memory", napi_create_error);
  } catch (const std::exception& error) {
    return MakeError(env, nullptr, error.what(), napi_create_error);
  } catch (...) {
    return MakeError(env, nullptr, "unknown native error", napi_create_error);
  }
}

Arguments GetArguments(napi_env env, napi_callback_info info, size_t count) {
  Arguments arguments;
  arguments.values.resize(count);
  size_t given = count;
  Check(env, napi_get_cb_info(env, info, &given, arguments.values.data(), &arguments.self, nullptr));
  return arguments;
}

uint64_t GetInteger(napi_env env, napi_value value, const std::string& name, uint64_t minimum, uint64_t maximum) {
  napi_valuetype type;
  Check(env, napi_typeof(env, value, &type));
  double number = -1;
  if (type == napi_number) Check(env, napi_get_value_double(env, value, &number));
  if (type != napi_number || !IsSafeInteger(number) || number < static_cast<double>(minimum) || number > static_cast<double>(maximum)) {
    throw ArgumentError(name + " must be an integer from " + std::to_string(minimum) + " to " + std::to_string(maximum));
  }
  return static_cast<uint64_t>(number);
}

std::string GetString(napi_env env, napi_value value, const std::string& name, size_t max_bytes) {
  napi_valuetype type;
  Check(env, napi_typeof(env, value, &type));
  if (type != napi_string) throw ArgumentError(name + " must be a string");
  size_t length = 0;
  Check(env, napi_get_value_string_utf8(env, value, nullptr, 0, &length));
  if (length > max_bytes) throw ArgumentError(name + " is longer than " + std::to_string(max_bytes) + " bytes");
  std::string text(length + 1, '\0');
  Check(env, napi_get_value_string_utf8(env, value, &text[0], length + 1, &length));
  text.resize(length);
  return text;
}

bool GetBoolean(napi_env env, napi_value value, const std::string& name) {
  bool flag = false;
  if (napi_get_value_bool(env, value, &flag) != napi_ok) throw ArgumentError(name + " must be a boolean");
  return flag;
}

int GetDescriptor(napi_env env, napi_value value, const std::string& name) {
  return static_cast<int>(GetInteger(env, value, name, 0, INT32_MAX));
}

napi_value GetProperty(napi_env env, napi_value object, const char* key, const std::string& name) {
  napi_valuetype type;
  Check(env, napi_typeof(env, object, &type));
  if (type != napi_object) throw ArgumentError(name + " must be an object");
  napi_value value;
  Check(env, napi_get_named_property(env, object, key, &value));
  return value;
}

bool IsUndefined(napi_env env, napi_value value) {
  napi_valuetype type;
  Check(env, napi_typeof(env, value, &type));
  return type == napi_undefined;
}

Bytes GetBytes(napi_env env, napi_value value, const std::string& name) {
  bool is_typed_array = false;
  Check(env, napi_is_typedarray(env, value, &is_typed_array));
  if (!is_typed_array) throw ArgumentError(name + " must be a Buffer or Uint8Array");
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  Check(env, napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr));
  if (type != napi_uint8_array) throw ArgumentError(name + " must be a Buffer or Uint8Array");
  return {static_cast<uint8_t*>(data), length};
}

std::vector<double> GetDoubles(napi_env env, napi_value value, const std::string& name, size_t max_count) {
  bool is_typed_array = false;
  Check(env, napi_is_typedarray(env, value, &is_typed_array));
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void* data = nullptr;
  if (is_typed_array) Check(env, napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr));
  if (type != napi_float64_array) throw ArgumentError(name + " must be a Float64Array");
  if (length > max_count) throw ArgumentError(name + " has more than " + std::to_string(max_count) + " numbers");
  std::vector<double> numbers(length);
  if (length > 0) std::memcpy(numbers.data(), data, length * sizeof(double));
  return numbers;
}

std::vector<napi_value> GetArray(napi_env env, napi_value value, const std::string& name, size_t max_count) {
  bool is_array = false;
  Check(env, napi_is_array(env, value, &is_array));
  if (!is_array) throw ArgumentError(name + " must be an array");
  uint32_t length = 0;
  Check(env, napi_get_array_length(env, value, &length));
  if (length > max_count) throw ArgumentError(name + " has more than " + std::to_string(max_count) + " elements");
  std::vector<napi_value> elements(length);
  for (uint32_t index = 0; index < length; index++) Check(env, napi_get_element(env, value, index, &elements[index]));
  return elements;
}

Content GetContent(napi_env env, napi_value value, const std::string& name) {
  Content content;
  content.fd = GetDescriptor(env, GetProperty(env, value, "fd", name), name + ".fd");
  content.size = GetInteger(env, GetProperty(env, value, "sizeBytes", name), name + ".sizeBytes", 0, kMaxSafeInteger);
  const std::vector<double> numbers = GetDoubles(env, GetProperty(env, value, "extents", name), name + ".extents", 2 * kMaxExtents);
  if (numbers.size() % 2 != 0) throw ArgumentError(name + ".extents must be pairs of offset and length");
  content.extents.reserve(numbers.size() / 2);
  uint64_t total = 0;
  for (size_t index = 0; index < numbers.size(); index += 2) {
    if (!IsSafeInteger(numbers[index]) || !IsSafeInteger(numbers[index + 1])) throw ArgumentError(name + ".extents must hold unsigned safe integers");
    const Extent extent{static_cast<uint64_t>(numbers[index]), static_cast<uint64_t>(numbers[index + 1])};
    total += extent.length;
    if (extent.offset + extent.length > kMaxSafeInteger || total > kMaxSafeInteger) throw ArgumentError(name + ".extents reach too far");
    content.extents.push_back(extent);
  }
  if (total != content.size) throw ArgumentError(name + ".extents do not add up to sizeBytes");
  return content;
}

std::vector<Content> GetContents(napi_env env, napi_value value, const std::string& name) {
  std::vector<Content> contents;
  uint64_t total = 0;
  for (napi_value element : GetArray(env, value, name, kMaxContents)) {
    contents.push_back(GetContent(env, element, name + "[" + std::to_string(contents.size()) + "]"));
    total += contents.back().size;
    if (total > kMaxSafeInteger) throw ArgumentError(name + " are too large in all");
  }
  return contents;
}

napi_value MakeNumber(napi_env env, double value) {
  napi_value number;
  Check(env, napi_create_double(env, value, &number));
  return number;
}

napi_value MakeString(napi_env env, const std::string& value) {
  napi_value text;
  Check(env, napi_create_string_utf8(env, value.data(), value.size(), &text));
  return text;
}

napi_value MakeUndefined(napi_env env) {
  napi_value undefined;
  Check(env, napi_get_undefined(env, &undefined));
  return undefined;
}

napi_value MakeDoubles(napi_env env, const std::vector<double>& values) {
  void* data = nullptr;
  napi_value buffer, array;
  Check(env, napi_create_arraybuffer(env, values.size() * sizeof(double), &data, &buffer));
  if (!values.empty()) std::memcpy(data, values.data(), values.size() * sizeof(double));
  Check(env, napi_create_typedarray(env, napi_float64_array, values.size(), buffer, 0, &array));
  return array;
}

napi_value MakeBuffer(napi_env env, const void* data, size_t size) {
  napi_value buffer;
  void* copy = nullptr;
  Check(env, napi_create_buffer_copy(env, size, data, &copy, &buffer));
  return buffer;
}

void SetProperty(napi_env env, napi_value object, const char* key, napi_value value) {
  Check(env, napi_set_named_property(env, object, key, value));
}

void SetFunction(napi_env env, napi_value exports, const char* name, napi_callback function) {
  napi_value value;
  Check(env, napi_create_function(env, name, NAPI_AUTO_LENGTH, function, nullptr, &value));
  SetProperty(env, exports, name, value);
}

void RequireNew(napi_env env, napi_callback_info info, const char* class_name) {
  napi_value target = nullptr;
  Check(env, napi_get_new_target(env, info, &target));
  if (target == nullptr) throw ArgumentError(std::string(class_name) + " must be called with new");
}

void DefineClass(napi_env env, napi_value exports, const char* name, napi_callback constructor, const std::vector<napi_property_descriptor>& properties) {
  napi_value value;
  Check(env, napi_define_class(env, name, NAPI_AUTO_LENGTH, constructor, nullptr, properties.size(), properties.data(), &value));
  SetProperty(env, exports, name, value);
}

namespace {

struct RunningTask {
  std::unique_ptr<Task> task;
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  std::vector<napi_ref> references;
  std::exception_ptr failure;
};

void ExecuteTask(napi_env, void* data) {
  auto* running = static_cast<RunningTask*>(data);
  try {
    running->task->Execute();
  } catch (...) {
    running->failure = std::current_exception();
  }
}

napi_value TaskError(napi_env env, const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const PendingException&) {
    napi_value error = nullptr;
    return napi_get_and_clear_last_exception(env, &error) == napi_ok ? error : nullptr;
  } catch (...) {
    return CurrentError(env);
  }
}

// At the end of an environment (a worker that is terminated) JavaScript can no longer be called: every status
// here may be an error then, and there is nobody left to tell.
void CompleteTask(napi_env env, napi_status status, void* data) {
  std::unique_ptr<RunningTask> running(static_cast<RunningTask*>(data));
  napi_value result = nullptr;
  if (status != napi_ok && !running->failure) {
    running->failure = std::make_exception_ptr(CodedError("ECANCELED", "native work was cancelled"));
  }
  try {
    running->task->Finish(env, running->failure != nullptr);
    if (!running->failure) result = running->task->Result(env);
  } catch (...) {
    running->failure = std::current_exception();
  }
  if (running->failure) {
    napi_value error = TaskError(env, running->failure);
    if (error != nullptr) napi_reject_deferred(env, running->deferred, error);
  } else {
    napi_resolve_deferred(env, running->deferred, result);
  }
  for (napi_ref reference : running->references) napi_delete_reference(env, reference);
  napi_delete_async_work(env, running->work);
}

class FunctionTask : public Task {
 public:
  FunctionTask(std::function<void()> execute, std::function<napi_value(napi_env)> result)
      : execute_(std::move(execute)), result_(std::move(result)) {}
  void Execute() override { execute_(); }
  napi_value Result(napi_env env) override { return result_(env); }

 private:
  std::function<void()> execute_;
  std::function<napi_value(napi_env)> result_;
};

}  // namespace

napi_value RunTask(napi_env env, const char* name, std::unique_ptr<Task> task, const std::vector<napi_value>& keep_alive) {
  auto running = std::make_unique<RunningTask>();
  running->task = std::move(task);
  napi_value promise, resource_name;
  Check(env, napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &resource_name));
  for (napi_value value : keep_alive) {
    napi_ref reference;
    Check(env, napi_create_reference(env, value, 1, &reference));
    running->references.push_back(reference);
  }
  Check(env, napi_create_async_work(env, nullptr, resource_name, ExecuteTask, CompleteTask, running.get(), &running->work));
  Check(env, napi_create_promise(env, &running->deferred, &promise));
  Check(env, napi_queue_async_work(env, running->work));
  running.release();
  return promise;
}

napi_value RunFunction(napi_env env, const char* name, std::function<void()> execute, std::function<napi_value(napi_env)> result,
                       const std::vector<napi_value>& keep_alive) {
  return RunTask(env, name, std::make_unique<FunctionTask>(std::move(execute), std::move(result)), keep_alive);
}

}  // namespace whittle
