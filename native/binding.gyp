{
  # Two addons: a device installs no encoder and no matcher. Sources are listed by list-sources.mjs, by directory and name.
  'target_defaults': {
    'include_dirs': ['.'],
    # Sizes and times of 64 bits on 32-bit devices too: files above 2 GiB, and years after 2038.
    'defines': ['NAPI_VERSION=8', '_FILE_OFFSET_BITS=64', '_TIME_BITS=64'],
    'cflags': ['-O3', '-fvisibility=hidden', '-Wall', '-Wextra', '-Wno-unused-parameter'],
    'cflags_cc': ['-std=c++17', '-fvisibility-inlines-hidden'],
    # common.gypi asks for no exceptions and for a newer language level; std::bad_alloc has to become a rejected promise.
    'cflags_cc!': ['-fno-exceptions', '-std=gnu++20', '-std=gnu++17'],
    'ldflags': ['-Wl,-z,relro,-z,now'],
  },
  'targets': [
    { 'target_name': 'whittle_device', 'sources': ['<!@(node list-sources.mjs device)'] },
    { 'target_name': 'whittle_server', 'sources': ['<!@(node list-sources.mjs server)'] },
  ],
}
