// SPDX-License-Identifier: Apache-2.0
// Loads and stores of one element and of N consecutive ones, and programmatic dependent launch.
//
// Operands that are constants of the model are read through the read-only path. Others are not: with programmatic
// dependent launch the kernel that writes them may still run, and the compiler moves read-only loads freely.
#if defined(TCC_PDL) && __CUDA_ARCH__ >= 900
#define TCC_PDL_WAIT() asm volatile("griddepcontrol.wait;" ::: "memory")
#define TCC_PDL_LAUNCH() asm volatile("griddepcontrol.launch_dependents;" ::: "memory")
#else
#define TCC_PDL_WAIT()
#define TCC_PDL_LAUNCH()
#endif

namespace tcc {

template <int Bytes> struct Raw;
template <> struct Raw<1> { using type = unsigned char; };
template <> struct Raw<2> { using type = unsigned short; };
template <> struct Raw<4> { using type = unsigned; };
template <> struct Raw<8> { using type = uint2; };
template <> struct Raw<16> { using type = uint4; };

// N elements as they lie in memory, aligned to their size.
template <class C, int N>
struct alignas(sizeof(typename C::mem) * N) Pack {
  typename C::mem v[N];
};

template <bool Constant, class R>
TCC_FN R load_raw(const R* p) {
  if constexpr (Constant) return __ldg(p);
  else return *p;
}

template <class C, bool Constant>
TCC_FN typename C::reg read(const typename C::mem* p) {
  using R = typename Raw<sizeof(typename C::mem)>::type;
  const R raw = load_raw<Constant>(reinterpret_cast<const R*>(p));
  return C::load(reinterpret_cast<const typename C::mem&>(raw));
}

// N consecutive elements; p is aligned to 16 bytes or to all of them, whichever is less.
template <class C, int N, bool Constant>
TCC_FN void read_vector(const typename C::mem* p, typename C::reg (&out)[N]) {
  constexpr int size = sizeof(typename C::mem);
  constexpr int bytes = N * size < 16 ? N * size : 16, per = bytes / size;
  using R = typename Raw<bytes>::type;
  R raw[N / per];
#pragma unroll
  for (int i = 0; i < N / per; ++i) raw[i] = load_raw<Constant>(reinterpret_cast<const R*>(p) + i);
#pragma unroll
  for (int i = 0; i < N / per; ++i) {
    const Pack<C, per> pack = reinterpret_cast<const Pack<C, per>&>(raw[i]);
#pragma unroll
    for (int j = 0; j < per; ++j) out[i * per + j] = C::load(pack.v[j]);
  }
}

template <class C>
TCC_FN void write(typename C::mem* p, typename C::reg v) { *p = C::store(v); }

template <class C, int N>
TCC_FN void write_vector(typename C::mem* p, const typename C::reg (&v)[N]) {
  constexpr int size = sizeof(typename C::mem);
  constexpr int bytes = N * size < 16 ? N * size : 16, per = bytes / size;
  using R = typename Raw<bytes>::type;
#pragma unroll
  for (int i = 0; i < N / per; ++i) {
    Pack<C, per> pack;
#pragma unroll
    for (int j = 0; j < per; ++j) pack.v[j] = C::store(v[i * per + j]);
    reinterpret_cast<R*>(p)[i] = reinterpret_cast<const R&>(pack);
  }
}

}  // namespace tcc
