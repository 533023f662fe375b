// SPDX-License-Identifier: Apache-2.0
// Floats of 8 bits and fewer. Conversions go through integers, so every architecture has them.
namespace tcc {

// Exponent and mantissa bits, bias, the magnitude bits of the largest finite number, and what lies above it.
enum Above { NAN_ALL_ONES, INFINITY_THEN_NAN, NAN_NEGATIVE_ZERO, NOTHING };

template <int E, int M, int Bias, unsigned Largest, Above A>
struct SmallFloat : Plain<unsigned char, float, FLOAT, 1 + E + M> {
  static constexpr unsigned sign = 1u << (E + M);
  static TCC_FN float load(unsigned char v) {
    const unsigned magnitude = v & (sign - 1), exponent = magnitude >> M, mantissa = magnitude & ((1u << M) - 1);
    if (A == NAN_NEGATIVE_ZERO && (v & (2 * sign - 1)) == sign) return __int_as_float(0x7fc00000);
    if (A == NAN_ALL_ONES && magnitude > Largest) return __int_as_float(0x7fc00000);
    if (A == INFINITY_THEN_NAN && magnitude > Largest)
      return __int_as_float((mantissa ? 0x7fc00000u : 0x7f800000u) | ((v & sign) ? 0x80000000u : 0u));
    const float size = exponent ? __int_as_float(((exponent + 127 - Bias) << 23) | (mantissa << (23 - M)))
                                : static_cast<float>(mantissa) * __int_as_float((128 - Bias - M) << 23);
    return (v & sign) ? -size : size;
  }
  // Rounds to nearest, ties to even; a number beyond the largest becomes the largest (ONNX Cast, saturate = 1).
  static TCC_FN unsigned char store(float x) {
    const unsigned bits = __float_as_int(x), negative = bits >> 31 ? sign : 0u;
    // f4e2m1 has no NaN: as ml_dtypes does, a zero of the other sign.
    if (x != x) return A == NAN_NEGATIVE_ZERO ? sign : A == NOTHING ? negative ^ sign : negative | (sign - 1);
    const float size = fabsf(x);
    if (A == INFINITY_THEN_NAN && size == __int_as_float(0x7f800000)) return negative | (Largest + 1);
    unsigned code;
    if (size < __int_as_float((128 - Bias) << 23)) {  // subnormal: a multiple of 2^(1-Bias-M)
      code = static_cast<unsigned>(__float2int_rn(size * __int_as_float((126 + Bias + M) << 23)));
    } else {
      const unsigned u = __float_as_int(size), rounded = u + ((1u << (22 - M)) - 1) + ((u >> (23 - M)) & 1);
      code = (rounded >> (23 - M)) - ((127u - Bias) << M);
    }
    if (size > 1e30f || code > Largest) code = Largest;
    if (A == NAN_NEGATIVE_ZERO && code == 0) return 0;
    return static_cast<unsigned char>(negative | code);
  }
};

struct f8e4m3fn : SmallFloat<4, 3, 7, 0x7e, NAN_ALL_ONES> {};
struct f8e4m3fnuz : SmallFloat<4, 3, 8, 0x7f, NAN_NEGATIVE_ZERO> {};
struct f8e5m2 : SmallFloat<5, 2, 15, 0x7b, INFINITY_THEN_NAN> {};
struct f8e5m2fnuz : SmallFloat<5, 2, 16, 0x7f, NAN_NEGATIVE_ZERO> {};
struct f4e2m1 : SmallFloat<2, 1, 1, 0x7, NOTHING> {};

// A power of two, 2^(v-127); 255 is NaN. Rounds to the nearest power in the logarithm's sense of float rounding.
struct f8e8m0 : Plain<unsigned char, float, FLOAT, 8> {
  static TCC_FN float load(unsigned char v) {
    return v == 255 ? __int_as_float(0x7fc00000) : v == 0 ? __int_as_float(0x00400000) : __int_as_float(v << 23);
  }
  static TCC_FN unsigned char store(float x) {
    if (x != x || x < 0.0f) return 255;
    const unsigned u = __float_as_int(x), up = (u >> 22) & 1 && ((u & 0x3fffff) || ((u >> 23) & 1));
    const unsigned code = (u >> 23) + up;
    return static_cast<unsigned char>(code > 254 ? 254 : code);
  }
};

}  // namespace tcc
