// Linux kernels for 64-bit ARM that start as they are, without an ELF header: code from the first byte on, and relocations.
// https://docs.kernel.org/arch/arm64/booting.html
#pragma once

#include <cstddef>
#include <cstdint>

#include "codec/elf_image.h"
#include "codec/old_content.h"

namespace whittle::codec {

/** Bytes of the header. */
constexpr size_t kKernelHeaderBytes = 64;

/** Whether a content that begins with these kKernelHeaderBytes is such a kernel. */
bool IsKernelImage(const uint8_t* header);

/** Parses the kernel that begins with `header`: all of it is one segment of code, but for the first table of relocations. */
void ParseKernelImage(OldContent& content, const uint8_t* header, ElfImage& image);

}  // namespace whittle::codec
