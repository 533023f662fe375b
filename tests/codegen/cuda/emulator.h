// SPDX-License-Identifier: Apache-2.0
// Runs CUDA C++ kernels of the templates on the CPU, one block after another, each thread of a block a fiber. Barriers
// and shuffles switch fibers; a barrier that cannot be passed aborts the run. For tests of what kernels compute.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __device__
#define __forceinline__ inline
#define __global__
#define __host__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __shared__ thread_local
#define __align__(n) __attribute__((aligned(n)))

struct dim3 { unsigned x, y, z; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };

// Blocks of a cooperative launch wait for each other: each is a thread of its own.
#ifdef TCC_COOPERATIVE
#include <sched.h>
#include <atomic>
#include <thread>
#include <vector>
#define EACH_BLOCK thread_local
#else
#define EACH_BLOCK
#endif

static EACH_BLOCK dim3 threadIdx, blockIdx, blockDim, gridDim;
alignas(128) thread_local unsigned char tcc_shared[256 << 10];

namespace emulator {
enum State { READY, AT_BLOCK, AT_WARP, DONE };
constexpr int most = 1024, stack = 256 << 10;
static EACH_BLOCK ucontext_t scheduler, fibers[most];
static EACH_BLOCK char* stacks;
static EACH_BLOCK State states[most];
static EACH_BLOCK unsigned long long lanes[most];  // what a lane offers in a shuffle or a vote
static EACH_BLOCK int current;
static EACH_BLOCK void (*body)();

static void yield(State state) {
  states[current] = state;
  swapcontext(&fibers[current], &scheduler);
}
static void enter() {
  body();
  yield(DONE);
}
static int run_block() {
  const int count = blockDim.x * blockDim.y * blockDim.z;
  if (!stacks) stacks = static_cast<char*>(malloc(static_cast<size_t>(most) * stack));
  for (int i = 0; i < count; ++i) {
    getcontext(&fibers[i]);
    fibers[i].uc_stack.ss_sp = stacks + static_cast<size_t>(i) * stack;
    fibers[i].uc_stack.ss_size = stack;
    fibers[i].uc_link = nullptr;
    makecontext(&fibers[i], enter, 0);
    states[i] = READY;
  }
  for (;;) {
    int done = 0, at_block = 0;
    bool moved = false;
    for (int i = 0; i < count; ++i) {
      if (states[i] == READY) {
        current = i;
        threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
        swapcontext(&scheduler, &fibers[i]);
        moved = true;
      }
    }
    for (int w = 0; w < count; w += 32) {
      bool all = true, any = false;
      for (int i = w; i < w + 32 && i < count; ++i) {
        all &= states[i] == AT_WARP || states[i] == DONE;
        any |= states[i] == AT_WARP;
      }
      if (all && any) {
        moved = true;
        for (int i = w; i < w + 32 && i < count; ++i) if (states[i] == AT_WARP) states[i] = READY;
      }
    }
    for (int i = 0; i < count; ++i) { done += states[i] == DONE; at_block += states[i] == AT_BLOCK; }
    if (done == count) return 0;
    if (at_block && at_block + done == count) {
      for (int i = 0; i < count; ++i) if (states[i] == AT_BLOCK) states[i] = READY;
    } else if (!moved) {
      return 1;
    }
  }
}
#ifdef TCC_COOPERATIVE
static int run(void (*kernel)(), dim3 grid, dim3 block) {
  std::atomic<int> stuck{0};
  std::vector<std::thread> blocks;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x)
        blocks.emplace_back([=, &stuck] {
          body = kernel;
          gridDim = grid;
          blockDim = block;
          blockIdx = {x, y, z};
          memset(tcc_shared, 0xff, sizeof tcc_shared);
          if (run_block()) stuck = 1;
          free(stacks);
        });
  for (auto& b : blocks) b.join();
  return stuck;
}
#else
static int run(void (*kernel)(), dim3 grid, dim3 block) {
  body = kernel;
  gridDim = grid;
  blockDim = block;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        memset(tcc_shared, 0xff, sizeof tcc_shared);
        if (run_block()) return 1;
      }
  return 0;
}
#endif
template <class T>
static T exchange(T v, int from) {
  static_assert(sizeof(T) <= 8, "");
  memcpy(&lanes[current], &v, sizeof v);
  yield(AT_WARP);
  T got;
  memcpy(&got, &lanes[(current & ~31) | from], sizeof got);
  yield(AT_WARP);
  return got;
}
}  // namespace emulator

inline void __syncthreads() { emulator::yield(emulator::AT_BLOCK); }
inline void __syncwarp(unsigned = ~0u) { emulator::yield(emulator::AT_WARP); }
template <class T> T __shfl_xor_sync(unsigned, T v, int d, int = 32) { return emulator::exchange(v, (emulator::current & 31) ^ d); }
template <class T> T __shfl_sync(unsigned, T v, int lane, int width = 32) {
  return emulator::exchange(v, ((emulator::current & 31) & ~(width - 1)) | (lane & (width - 1)));
}
template <class T> T __shfl_down_sync(unsigned, T v, int d, int width = 32) {
  const int lane = emulator::current & 31, at = (lane & (width - 1)) + d;
  return emulator::exchange(v, at < width ? lane + d : lane);
}

template <class T> T __shfl_up_sync(unsigned, T v, int d, int width = 32) {
  const int lane = emulator::current & 31, at = (lane & (width - 1)) - d;
  return emulator::exchange(v, at >= 0 ? lane - d : lane);
}
inline unsigned atomicAdd(unsigned* at, unsigned v) { return __atomic_fetch_add(at, v, __ATOMIC_SEQ_CST); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline unsigned atomicMax(unsigned* at, unsigned v) { const unsigned old = *at; if (v > old) *at = v; return old; }

template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
#ifdef TCC_COOPERATIVE
inline void tcc_pause() { sched_yield(); }
#else
inline void tcc_pause() {}
#endif
inline float __int_as_float(int v) { float f; memcpy(&f, &v, 4); return f; }
inline int __float_as_int(float v) { int f; memcpy(&f, &v, 4); return f; }
inline double __longlong_as_double(long long v) { double f; memcpy(&f, &v, 8); return f; }
inline long long __double_as_longlong(double v) { long long f; memcpy(&f, &v, 8); return f; }
inline float __fdividef(float a, float b) { return a / b; }
inline int __float2int_rn(float v) { return static_cast<int>(rintf(v)); }
inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
inline double rsqrt(double v) { return 1.0 / sqrt(v); }


struct __half { _Float16 v; };
inline float __half2float(__half h) { return static_cast<float>(h.v); }
inline __half __float2half_rn(float f) { return {static_cast<_Float16>(f)}; }
struct __nv_bfloat16 { unsigned short v; };
inline float __bfloat162float(__nv_bfloat16 h) { return __int_as_float(static_cast<unsigned>(h.v) << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float f) {
  const unsigned u = __float_as_int(f);
  if (f != f) return {0x7fff};
  return {static_cast<unsigned short>((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
}

// What tensor.cuh gets from PTX.
#define TCC_EMULATED
namespace emulator {
struct Fragment { unsigned a[4], b[2]; };
static Fragment fragments[most];
static const void* rows[most];
template <bool Transposed>
static void ldmatrix(unsigned (&r)[4], const void* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16) abort();
  rows[current] = row;
  yield(AT_WARP);
  const int warp = current & ~31, lane = current & 31;
  unsigned short got[4][2];
  for (int i = 0; i < 4; ++i)
    for (int e = 0; e < 2; ++e) {
      const int y = Transposed ? 2 * (lane % 4) + e : lane / 4, x = Transposed ? lane / 4 : 2 * (lane % 4) + e;
      memcpy(&got[i][e], static_cast<const char*>(rows[warp + 8 * i + y]) + 2 * x, 2);
    }
  memcpy(r, got, sizeof got);
  yield(AT_WARP);
}
}  // namespace emulator
namespace tcc {
inline void copy_async16(void* to, const void* from) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16) abort();
  memcpy(to, from, 16);
}
inline void copy_async_commit() {}
template <int Pending> void copy_async_wait() {}
inline void ldmatrix4(unsigned (&r)[4], const void* row) { emulator::ldmatrix<false>(r, row); }
inline void ldmatrix4_transposed(unsigned (&r)[4], const void* row) { emulator::ldmatrix<true>(r, row); }
template <class C>
void mma_16816(float (&acc)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  emulator::Fragment mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
  emulator::fragments[emulator::current] = mine;
  emulator::yield(emulator::AT_WARP);
  const int warp = emulator::current & ~31, lane = emulator::current & 31;
  const auto element = [](unsigned word, int half) {
    const unsigned short bits = word >> (16 * half);
    typename C::mem v;
    memcpy(&v, &bits, 2);
    return C::load(v);
  };
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + (i / 2) * 8, column = 2 * (lane % 4) + i % 2;
    for (int k = 0; k < 16; ++k) {
      const unsigned x = emulator::fragments[warp + row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2];
      const unsigned y = emulator::fragments[warp + column * 4 + k % 8 / 2].b[k / 8];
      acc[i] += element(x, k % 2) * element(y, k % 2);
    }
  }
  emulator::yield(emulator::AT_WARP);
}
inline float exp2_approx(float x) { return exp2f(x); }
}  // namespace tcc
