// The profile argument that encoder and decoder share.
#pragma once

#include "codec/decode.h"
#include "common/napi.h"

namespace whittle::codec {

/** `'small'` or `'fast'`. Throws ArgumentError. */
inline ProfileName GetProfile(napi_env env, napi_value value) {
  const std::string name = GetString(env, value, "profile", 16);
  if (name == "small") return ProfileName::kSmall;
  if (name == "fast") return ProfileName::kFast;
  throw ArgumentError("profile must be 'small' or 'fast'");
}

}  // namespace whittle::codec
