// Exposes the matcher to JavaScript: matchFile, BlockIndex.
#include "common/napi.h"
#include "match/block_index.h"
#include "match/match_content.h"

namespace whittle {

namespace {

constexpr napi_type_tag kBlockIndexTag = {0x3d0f6c8e5a1b4f27u, 0x9b7e24c1d85a6f03u};

constexpr int kMaxThreads = 64;
constexpr int kMaxLabelPasses = 8;

/** matchFile({sources, target, memoryLimitBytes, threads?, labelPasses?}): Promise<Float64Array> of triples newPos, oldPos, length. */
napi_value MatchFile(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    struct Job {
      std::vector<Content> sources;
      Content target;
      uint64_t memory_limit_bytes;
      int threads = 1;
      int label_passes = 0;
      std::vector<double> ops;
    };
    auto job = std::make_shared<Job>();
    const napi_value options = GetArguments(env, info, 1)[0];
    job->sources = GetContents(env, GetProperty(env, options, "sources", "options"), "sources");
    job->target = GetContent(env, GetProperty(env, options, "target", "options"), "target");
    job->memory_limit_bytes = GetInteger(env, GetProperty(env, options, "memoryLimitBytes", "options"), "memoryLimitBytes", 0, kMaxSafeInteger);
    const napi_value threads = GetProperty(env, options, "threads", "options");
    if (!IsUndefined(env, threads)) job->threads = static_cast<int>(GetInteger(env, threads, "threads", 1, kMaxThreads));
    const napi_value passes = GetProperty(env, options, "labelPasses", "options");
    if (!IsUndefined(env, passes)) job->label_passes = static_cast<int>(GetInteger(env, passes, "labelPasses", 0, kMaxLabelPasses));
    const auto execute = [job] {
      const std::vector<MatchOp> ops = MatchContent(job->sources, job->target, job->memory_limit_bytes, job->threads, job->label_passes);
      job->ops.reserve(3 * ops.size());
      for (const MatchOp& op : ops) {
        for (const uint64_t number : {op.new_position, op.old_position, op.length}) job->ops.push_back(static_cast<double>(number));
      }
    };
    return RunFunction(env, "whittle:matchFile", execute, [job](napi_env result_env) { return MakeDoubles(result_env, job->ops); });
  });
}

napi_value NewBlockIndex(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    RequireNew(env, info, "BlockIndex");
    const Arguments arguments = GetArguments(env, info, 1);
    const uint64_t limit = GetInteger(env, GetProperty(env, arguments[0], "memoryLimitBytes", "options"), "memoryLimitBytes",
                                      BlockIndex::kMinMemoryBytes, kMaxSafeInteger);
    const napi_value wanted = GetProperty(env, arguments[0], "wantedBytes", "options");
    const uint64_t wanted_bytes = IsUndefined(env, wanted) ? 0 : GetInteger(env, wanted, "wantedBytes", 0, kMaxSafeInteger);
    WrapObject(env, arguments.self, kBlockIndexTag, std::make_unique<BlockIndex>(limit, wanted_bytes));
    return arguments.self;
  });
}

/** want(content): Promise<void>. */
napi_value BlockIndexWant(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 1);
    BlockIndex* index = UnwrapObject<BlockIndex>(env, arguments.self, kBlockIndexTag);
    auto content = std::make_shared<Content>(GetContent(env, arguments[0], "content"));
    return RunFunction(env, "whittle:BlockIndex.want", [index, content] { index->Want(*content); }, MakeUndefined, {arguments.self});
  });
}

/** add(id, content): Promise<void>. */
napi_value BlockIndexAdd(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 2);
    BlockIndex* index = UnwrapObject<BlockIndex>(env, arguments.self, kBlockIndexTag);
    const uint32_t id = static_cast<uint32_t>(GetInteger(env, arguments[0], "id", 0, UINT32_MAX - 1));
    auto content = std::make_shared<Content>(GetContent(env, arguments[1], "content"));
    return RunFunction(env, "whittle:BlockIndex.add", [index, id, content] { index->Add(id, *content); }, MakeUndefined, {arguments.self});
  });
}

/** query(content): Promise<Float64Array> of pairs id, bytes in common. */
napi_value BlockIndexQuery(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 1);
    BlockIndex* index = UnwrapObject<BlockIndex>(env, arguments.self, kBlockIndexTag);
    auto content = std::make_shared<Content>(GetContent(env, arguments[0], "content"));
    auto pairs = std::make_shared<std::vector<double>>();
    const auto execute = [index, content, pairs] {
      for (const BlockIndex::Candidate& candidate : index->Query(*content)) {
        pairs->push_back(candidate.id);
        pairs->push_back(static_cast<double>(candidate.shared_bytes));
      }
    };
    return RunFunction(env, "whittle:BlockIndex.query", execute, [pairs](napi_env result_env) { return MakeDoubles(result_env, *pairs); }, {arguments.self});
  });
}

/** clear(): void. */
napi_value BlockIndexClear(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 0);
    UnwrapObject<BlockIndex>(env, arguments.self, kBlockIndexTag)->Clear();
    return MakeUndefined(env);
  });
}

}  // namespace

void RegisterMatcher(napi_env env, napi_value exports) {
  SetFunction(env, exports, "matchFile", MatchFile);
  DefineClass(env, exports, "BlockIndex", NewBlockIndex,
              {Method("want", BlockIndexWant), Method("add", BlockIndexAdd), Method("query", BlockIndexQuery), Method("clear", BlockIndexClear)});
}

}  // namespace whittle
