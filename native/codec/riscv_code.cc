#include "codec/riscv_code.h"

#include "codec/number.h"
#include "codec/riscv_fields.h"

namespace whittle::codec {

void CountFromStart(uint8_t* code, size_t size, uint64_t position, bool undo) {
  // Neither changes what tells instructions apart, so that both see the same ones.
  for (size_t index = 0; index + 4 <= size;) {
    const uint32_t word = Load(code + index), place = static_cast<uint32_t>(position + index), shift = undo ? 0 - place : place;
    if (IsJal(word) && RiscvTarget(word) != 0) {
      Store(code + index, WithJalDistance(word, static_cast<uint32_t>(JalDistance(word)) + shift));
    } else if (IsAuipc(word) && RiscvTarget(word) != 0 && index + 8 <= size) {
      const uint32_t user = Load(code + index + 4);
      if (AddsLow12(user) && RiscvBase(user) == RiscvTarget(word)) {
        const uint32_t counted = static_cast<uint32_t>(UpperDistance(word) + Low12(user)) + shift;
        Store(code + index, WithUpper(word, counted));
        Store(code + index + 4, WithLow12(user, counted));
      }
    }
    index += static_cast<size_t>(RiscvBytes(word));
  }
}

}  // namespace whittle::codec
