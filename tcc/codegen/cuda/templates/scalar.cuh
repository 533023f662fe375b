// SPDX-License-Identifier: Apache-2.0
// The dialects arith and math: what generated regions call. Floats keep NaNs; integers wrap and divide without traps.
namespace tcc {

TCC_FN int floor_div(int a, int b) { return b == 0 ? 0 : a / b - ((a % b != 0) & ((a < 0) != (b < 0))); }
TCC_FN long long floor_div(long long a, long long b) {
  return b == 0 ? 0 : a / b - ((a % b != 0) & ((a < 0) != (b < 0)));
}
TCC_FN int floor_mod(int a, int b) { return a - floor_div(a, b) * b; }
TCC_FN long long floor_mod(long long a, long long b) { return a - floor_div(a, b) * b; }
template <class T> TCC_FN T min_index(T a, T b) { return b < a ? b : a; }
template <class T> TCC_FN T max_index(T a, T b) { return a < b ? b : a; }

// Integers of type C: computed in 64 unsigned bits, where nothing is undefined, then wrapped.
template <class C> using reg_of = typename C::reg;
template <class C> TCC_FN reg_of<C> iadd(reg_of<C> a, reg_of<C> b) {
  if constexpr (C::bits <= 32) return C::wrap(static_cast<unsigned>(a) + static_cast<unsigned>(b));
  else return C::wrap(static_cast<unsigned long long>(a) + static_cast<unsigned long long>(b));
}
template <class C> TCC_FN reg_of<C> isub(reg_of<C> a, reg_of<C> b) {
  if constexpr (C::bits <= 32) return C::wrap(static_cast<unsigned>(a) - static_cast<unsigned>(b));
  else return C::wrap(static_cast<unsigned long long>(a) - static_cast<unsigned long long>(b));
}
template <class C> TCC_FN reg_of<C> imul(reg_of<C> a, reg_of<C> b) {
  if constexpr (C::bits <= 32) return C::wrap(static_cast<unsigned>(a) * static_cast<unsigned>(b));
  else return C::wrap(static_cast<unsigned long long>(a) * static_cast<unsigned long long>(b));
}
template <class C> TCC_FN reg_of<C> ineg(reg_of<C> a) { return isub<C>(0, a); }
template <class C> TCC_FN reg_of<C> idiv(reg_of<C> a, reg_of<C> b) {
  if (b == 0) return 0;
  if (C::kind == SIGNED && b == static_cast<reg_of<C>>(-1)) return ineg<C>(a);
  return C::wrap(a / b);
}
template <class C> TCC_FN reg_of<C> irem(reg_of<C> a, reg_of<C> b) {
  if (b == 0 || (C::kind == SIGNED && b == static_cast<reg_of<C>>(-1))) return 0;
  return C::wrap(a % b);
}
template <class C> TCC_FN reg_of<C> imod(reg_of<C> a, reg_of<C> b) {
  const reg_of<C> r = irem<C>(a, b);
  return r != 0 && (r < 0) != (b < 0) ? iadd<C>(r, b) : r;
}
template <class C> TCC_FN reg_of<C> ishl(reg_of<C> a, reg_of<C> b) {
  if (b < 0 || b >= C::bits) return 0;
  return C::wrap(static_cast<unsigned long long>(a) << static_cast<unsigned>(b));
}
template <class C> TCC_FN reg_of<C> ishr(reg_of<C> a, reg_of<C> b) {
  if (b < 0 || b >= C::bits) return a < 0 ? C::wrap(-1) : 0;
  return C::wrap(a >> static_cast<unsigned>(b));
}
template <class C> TCC_FN reg_of<C> iabs(reg_of<C> a) { return a < 0 ? ineg<C>(a) : a; }
template <class C> TCC_FN reg_of<C> isign(reg_of<C> a) { return C::wrap((a > 0) - (a < 0)); }

template <class T> TCC_FN T arith_min(T a, T b) { return b < a ? b : a; }
template <class T> TCC_FN T arith_max(T a, T b) { return a < b ? b : a; }
template <> TCC_FN float arith_min<float>(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float r;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
  return a != a || b != b ? nan32() : fminf(a, b);
#endif
}
template <> TCC_FN float arith_max<float>(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float r;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
  return a != a || b != b ? nan32() : fmaxf(a, b);
#endif
}
template <> TCC_FN double arith_min<double>(double a, double b) { return a != a || b != b ? nan64() : fmin(a, b); }
template <> TCC_FN double arith_max<double>(double a, double b) { return a != a || b != b ? nan64() : fmax(a, b); }

TCC_FN float arith_rem(float a, float b) { return fmodf(a, b); }
TCC_FN double arith_rem(double a, double b) { return fmod(a, b); }
template <class T> TCC_FN T float_mod(T a, T b) {
  const T r = arith_rem(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
TCC_FN float arith_mod(float a, float b) { return float_mod(a, b); }
TCC_FN double arith_mod(double a, double b) { return float_mod(a, b); }

#define TCC_UNARY(word, single, twice) \
  TCC_FN float math_##word(float a) { return single(a); } \
  TCC_FN double math_##word(double a) { return twice(a); }
TCC_UNARY(exp, expf, exp)
TCC_UNARY(log, logf, log)
TCC_UNARY(sqrt, sqrtf, sqrt)
TCC_UNARY(rsqrt, rsqrtf, rsqrt)
TCC_UNARY(erf, erff, erf)
TCC_UNARY(tanh, tanhf, tanh)
TCC_UNARY(sin, sinf, sin)
TCC_UNARY(cos, cosf, cos)
TCC_UNARY(tan, tanf, tan)
TCC_UNARY(asin, asinf, asin)
TCC_UNARY(acos, acosf, acos)
TCC_UNARY(atan, atanf, atan)
TCC_UNARY(sinh, sinhf, sinh)
TCC_UNARY(cosh, coshf, cosh)
TCC_UNARY(asinh, asinhf, asinh)
TCC_UNARY(acosh, acoshf, acosh)
TCC_UNARY(atanh, atanhf, atanh)
TCC_UNARY(log1p, log1pf, log1p)
TCC_UNARY(expm1, expm1f, expm1)
TCC_UNARY(abs, fabsf, fabs)
TCC_UNARY(floor, floorf, floor)
TCC_UNARY(ceil, ceilf, ceil)
TCC_UNARY(round, rintf, rint)
TCC_UNARY(trunc, truncf, trunc)
#undef TCC_UNARY

// exp(-|a|) cannot overflow, and the denominator lies in [1, 2], where the quick division is exact to 2 ulp.
TCC_FN float math_sigmoid(float a) {
  const float e = expf(-fabsf(a));
  return __fdividef(a >= 0.0f ? 1.0f : e, 1.0f + e);
}
TCC_FN double math_sigmoid(double a) {
  const double e = exp(-fabs(a));
  return (a >= 0.0 ? 1.0 : e) / (1.0 + e);
}
TCC_FN float math_sign(float a) { return a > 0.0f ? 1.0f : a < 0.0f ? -1.0f : a; }
TCC_FN double math_sign(double a) { return a > 0.0 ? 1.0 : a < 0.0 ? -1.0 : a; }
TCC_FN float math_pow(float a, float b) { return powf(a, b); }
TCC_FN double math_pow(double a, double b) { return pow(a, b); }
template <class T> TCC_FN bool math_isnan(T a) { return a != a; }
TCC_FN bool math_isinf(float a) { return fabsf(a) == inf32(); }
TCC_FN bool math_isinf(double a) { return fabs(a) == inf64(); }

}  // namespace tcc
