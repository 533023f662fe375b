// SPDX-License-Identifier: Apache-2.0
// Element types: what lies in memory (`mem`), what code computes with (`reg`), and conversions between them.
// TCC_USE_F16, TCC_USE_BF16 and TCC_USE_SMALL_FLOAT say which headers the source before this has included.
namespace tcc {

#define TCC_FN __device__ __forceinline__

TCC_FN float nan32() { return __int_as_float(0x7fc00000); }
TCC_FN float inf32() { return __int_as_float(0x7f800000); }
TCC_FN double nan64() { return __longlong_as_double(0x7ff8000000000000ll); }
TCC_FN double inf64() { return __longlong_as_double(0x7ff0000000000000ll); }

enum Kind { FLOAT, SIGNED, UNSIGNED, BOOLEAN };

template <class Mem, class Reg, Kind K, int Bits>
struct Plain {
  using mem = Mem;
  using reg = Reg;
  static constexpr Kind kind = K;
  static constexpr int bits = Bits;
  static TCC_FN Reg load(Mem v) { return static_cast<Reg>(v); }
  static TCC_FN Mem store(Reg v) { return static_cast<Mem>(v); }
  template <class T>
  static TCC_FN Reg wrap(T v) { return static_cast<Reg>(v); }
};

struct f64 : Plain<double, double, FLOAT, 64> {};
struct f32 : Plain<float, float, FLOAT, 32> {};
struct i64 : Plain<long long, long long, SIGNED, 64> {};
struct i32 : Plain<int, int, SIGNED, 32> {};
struct i16 : Plain<short, short, SIGNED, 16> {};
struct i8 : Plain<signed char, signed char, SIGNED, 8> {};
struct u64 : Plain<unsigned long long, unsigned long long, UNSIGNED, 64> {};
struct u32 : Plain<unsigned, unsigned, UNSIGNED, 32> {};
struct u16 : Plain<unsigned short, unsigned short, UNSIGNED, 16> {};
struct u8 : Plain<unsigned char, unsigned char, UNSIGNED, 8> {};

struct boolean : Plain<unsigned char, bool, BOOLEAN, 8> {
  static TCC_FN bool load(unsigned char v) { return v != 0; }
  static TCC_FN unsigned char store(bool v) { return v ? 1 : 0; }
  template <class T>
  static TCC_FN bool wrap(T v) { return v != 0; }
};

// Integers of 4 and 2 bits take a byte each; only the low bits of it count.
template <int Bits>
struct Nibble : Plain<signed char, signed char, SIGNED, Bits> {
  template <class T>
  static TCC_FN signed char wrap(T v) {
    return static_cast<signed char>(static_cast<int>(static_cast<unsigned>(v) << (32 - Bits)) >> (32 - Bits));
  }
  static TCC_FN signed char load(signed char v) { return wrap(v); }
};
template <int Bits>
struct UnsignedNibble : Plain<unsigned char, unsigned char, UNSIGNED, Bits> {
  template <class T>
  static TCC_FN unsigned char wrap(T v) {
    return static_cast<unsigned char>(static_cast<unsigned>(v) & ((1u << Bits) - 1));
  }
  static TCC_FN unsigned char load(unsigned char v) { return wrap(v); }
};
struct i4 : Nibble<4> {};
struct i2 : Nibble<2> {};
struct u4 : UnsignedNibble<4> {};
struct u2 : UnsignedNibble<2> {};

#ifdef TCC_USE_F16
struct f16 : Plain<__half, float, FLOAT, 16> {
  static TCC_FN float load(__half v) { return __half2float(v); }
  static TCC_FN __half store(float v) { return __float2half_rn(v); }
};
#endif
#ifdef TCC_USE_BF16
struct bf16 : Plain<__nv_bfloat16, float, FLOAT, 16> {
  static TCC_FN float load(__nv_bfloat16 v) { return __bfloat162float(v); }
  static TCC_FN __nv_bfloat16 store(float v) { return __float2bfloat16_rn(v); }
};
#endif

template <class C> TCC_FN constexpr long long lowest() {
  return C::kind == UNSIGNED ? 0 : static_cast<long long>(~0ull << (C::bits - 1));
}
template <class C> TCC_FN constexpr unsigned long long highest() {
  return ~0ull >> (64 - C::bits + (C::kind == SIGNED ? 1 : 0));
}

// arith.cast: to an integer from a float truncates and saturates (NaN gives 0), between integers wraps.
template <class To, class From>
TCC_FN typename To::reg cast(typename From::reg v) {
  using R = typename To::reg;
  if constexpr (To::kind == BOOLEAN) {
    return v != 0;
  } else if constexpr (To::kind == FLOAT) {
    return static_cast<R>(v);
  } else if constexpr (From::kind == FLOAT) {
    using F = typename From::reg;
    if (v != v) return 0;
    if (v <= static_cast<F>(lowest<To>())) return static_cast<R>(lowest<To>());
    if (v >= static_cast<F>(highest<To>())) return static_cast<R>(highest<To>());
    return static_cast<R>(v);
  } else {
    return To::wrap(v);
  }
}

}  // namespace tcc
