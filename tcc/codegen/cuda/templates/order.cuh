// SPDX-License-Identifier: Apache-2.0
// Keys with their places as unsigned integers in the order of a top-k: the greater comes first. Above lies the key, made
// comparable (NaN above all numbers, the zeros equal), below PLACES - 1 - place, so equal keys come by their places.
namespace tcc {

TCC_FN unsigned order_bits(float x) {
  if (x != x) return 0xffffffffu;
  const unsigned u = static_cast<unsigned>(__float_as_int(x == 0 ? 0.0f : x));
  return u >> 31 ? ~u : u | 0x80000000u;
}
TCC_FN unsigned long long order_bits(double x) {
  if (x != x) return ~0ull;
  const unsigned long long u = static_cast<unsigned long long>(__double_as_longlong(x == 0 ? 0.0 : x));
  return u >> 63 ? ~u : u | 0x8000000000000000ull;
}
TCC_FN unsigned long long order_bits(long long x) { return static_cast<unsigned long long>(x) ^ 0x8000000000000000ull; }
TCC_FN unsigned long long order_bits(unsigned long long x) { return x; }
TCC_FN unsigned order_bits(unsigned x) { return x; }
TCC_FN unsigned order_bits(int x) { return static_cast<unsigned>(x) ^ 0x80000000u; }
TCC_FN unsigned order_bits(short x) { return order_bits(static_cast<int>(x)); }
TCC_FN unsigned order_bits(signed char x) { return order_bits(static_cast<int>(x)); }
TCC_FN unsigned order_bits(unsigned short x) { return x; }
TCC_FN unsigned order_bits(unsigned char x) { return x; }
TCC_FN unsigned order_bits(bool x) { return x; }

// A packed key of KeyBytes (4 or 8); digits are bytes, digit 0 the uppermost of the key.
template <int KeyBytes> struct Packed;
template <> struct Packed<4> {
  unsigned long long all;
  TCC_FN static Packed make(unsigned key, unsigned rest) {
    return {static_cast<unsigned long long>(key) << 32 | rest};
  }
  TCC_FN unsigned rest() const { return static_cast<unsigned>(all); }
  TCC_FN bool before(const Packed& o) const { return all > o.all; }
  TCC_FN unsigned byte(int i) const { return static_cast<unsigned>(all >> (8 * i)) & 255u; }
  TCC_FN void set_byte(int i, unsigned v) { all |= static_cast<unsigned long long>(v) << (8 * i); }
  // Whether the bytes from i on upwards are not less than the other's, or the same.
  TCC_FN bool reaches(const Packed& o, int i) const { return i >= 8 || all >> (8 * i) >= o.all >> (8 * i); }
  TCC_FN bool same(const Packed& o, int i) const { return i >= 8 || all >> (8 * i) == o.all >> (8 * i); }
};
template <> struct Packed<8> {
  unsigned long long key;
  unsigned low;
  TCC_FN static Packed make(unsigned long long key, unsigned rest) { return {key, rest}; }
  TCC_FN unsigned rest() const { return low; }
  TCC_FN bool before(const Packed& o) const { return key > o.key || (key == o.key && low > o.low); }
  TCC_FN unsigned byte(int i) const { return (i < 4 ? low >> (8 * i) : static_cast<unsigned>(key >> (8 * i - 32))) & 255u; }
  TCC_FN void set_byte(int i, unsigned v) {
    if (i < 4) low |= v << (8 * i);
    else key |= static_cast<unsigned long long>(v) << (8 * i - 32);
  }
  TCC_FN bool reaches(const Packed& o, int i) const {
    if (i >= 12) return true;
    if (i >= 4) return key >> (8 * i - 32) >= o.key >> (8 * i - 32);
    return key > o.key || (key == o.key && low >> (8 * i) >= o.low >> (8 * i));
  }
  TCC_FN bool same(const Packed& o, int i) const {
    if (i >= 12) return true;
    if (i >= 4) return key >> (8 * i - 32) == o.key >> (8 * i - 32);
    return key == o.key && low >> (8 * i) == o.low >> (8 * i);
  }
};

}  // namespace tcc
