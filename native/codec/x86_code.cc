#include "codec/x86_code.h"

namespace whittle::codec {

namespace {

/** Opcodes from `first` to `last` take `form`. */
struct Range {
  uint8_t first, last, form;
};

constexpr uint8_t kM = 16, kZ = 9, kV = 10, kO = 11;  // ModRM; immediates as in X86Code

// Those not listed take nothing. Of 00 to 3F, which are eight times the same eight, only what differs is.
constexpr Range kPrimary[] = {
    {0x62, 0x63, kM},     {0x68, 0x68, kZ},     {0x69, 0x69, kM | kZ}, {0x6a, 0x6a, 1},      {0x6b, 0x6b, kM | 1},  {0x70, 0x7f, 1},
    {0x80, 0x80, kM | 1}, {0x81, 0x81, kM | kZ}, {0x82, 0x83, kM | 1}, {0x84, 0x8f, kM},     {0xa0, 0xa3, kO},      {0xa8, 0xa8, 1},
    {0xa9, 0xa9, kZ},     {0xb0, 0xb7, 1},      {0xb8, 0xbf, kV},      {0xc0, 0xc1, kM | 1}, {0xc2, 0xc2, 2},       {0xc4, 0xc5, kM},
    {0xc6, 0xc6, kM | 1}, {0xc7, 0xc7, kM | kZ}, {0xc8, 0xc8, 3},      {0xca, 0xca, 2},      {0xcd, 0xcd, 1},       {0xd0, 0xd3, kM},
    {0xd4, 0xd5, 1},      {0xd8, 0xdf, kM},     {0xe0, 0xe7, 1},       {0xe8, 0xe9, 4},      {0xeb, 0xeb, 1},       {0xf6, 0xf6, kM | 1},
    {0xf7, 0xf7, kM | kZ}, {0xfe, 0xff, kM},
};

// Those not listed take a ModRM byte.
constexpr Range kSecondary[] = {
    {0x05, 0x09, 0},      {0x0b, 0x0b, 0},      {0x0e, 0x0e, 0},      {0x30, 0x37, 0},      {0x70, 0x73, kM | 1}, {0x77, 0x77, 0},
    {0x80, 0x8f, 4},      {0xa0, 0xa2, 0},      {0xa4, 0xa4, kM | 1}, {0xa8, 0xaa, 0},      {0xac, 0xac, kM | 1}, {0xba, 0xba, kM | 1},
    {0xc2, 0xc2, kM | 1}, {0xc4, 0xc6, kM | 1}, {0xc8, 0xcf, 0},
};

template <size_t count>
void Fill(uint8_t* forms, const Range (&ranges)[count]) {
  for (const Range& range : ranges) {
    for (int opcode = range.first; opcode <= range.last; opcode++) forms[opcode] = range.form;
  }
}

}  // namespace

const X86Code::Forms X86Code::kForms;

X86Code::Forms::Forms() {
  for (int opcode = 0; opcode < 256; opcode++) {
    const int low = opcode & 7;
    of[0][opcode] = opcode >= 0x40 || low > 5 ? 0 : low < 4 ? kM : low == 4 ? 1 : kZ;
    of[1][opcode] = of[2][opcode] = kM;
    of[3][opcode] = kM | 1;
  }
  Fill(of[0], kPrimary);
  Fill(of[1], kSecondary);
}

}  // namespace whittle::codec
