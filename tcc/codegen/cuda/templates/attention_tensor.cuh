// SPDX-License-Identifier: Apache-2.0
// Attention on tensor cores (Dao, 2023, FlashAttention-2): a warp keeps 16 queries, their scores against BK keys and their
// output in registers; the scores' fragments are the next product's left fragments. Keys and values are double
// buffered. Rows in shared memory are padded by 16 bytes, which spreads ldmatrix over all banks.
//
// Generated: tcc_fetch_q/k(args, b, row, k, to), tcc_fetch_v(args, b, n, d, to): 8 elements to shared memory;
// tcc_score(args, b, m, n, s[VS]); tcc_epilogue(args, b, m, d, acc[VE]).
using Mem = Element::mem;
constexpr int THREADS = WARPS * 32, BQ = WARPS * 16;
constexpr int DK = (D + 15) / 16 * 16, DO = (DV + 15) / 16 * 16;
constexpr int STRIDE_K = DK + 8, STRIDE_V = DO + 8;
constexpr int TILES = (M + BQ - 1) / BQ, STEPS = (N + BK - 1) / BK;
constexpr float LOG2E = 1.44269504088896341f;

template <int Rows, int Columns, int Width, int Stride, class Fetch>
TCC_FN void fetch_tile(Mem* tile, int row0, int rows, const Fetch& fetch) {
  constexpr int chunks = Columns / 8;
#pragma unroll 4
  for (int i = threadIdx.x; i < Rows * chunks; i += THREADS) {
    const int row = i / chunks, column = i % chunks * 8;
    Mem* to = tile + row * Stride + column;
    if (row0 + row < rows && column < Width) fetch(row0 + row, column, to);
    else *reinterpret_cast<uint4*>(to) = uint4{0, 0, 0, 0};
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  extern __shared__ __align__(128) unsigned char tcc_shared[];
  Mem* const q_tile = reinterpret_cast<Mem*>(tcc_shared);
  Mem* const k_tiles = q_tile + BQ * STRIDE_K;
  Mem* const v_tiles = k_tiles + BUFFERS * BK * STRIDE_K;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int batch = blockIdx.x / TILES, m0 = blockIdx.x % TILES * BQ;
  const float least = -tcc::inf32();
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();

  const auto fetch_keys = [&](int step) {
    fetch_tile<BK, DK, D, STRIDE_K>(k_tiles + step % BUFFERS * BK * STRIDE_K, step * BK, N,
                                    [&](int r, int c, Mem* to) { tcc_fetch_k(args, batch, r, c, to); });
    fetch_tile<BK, DO, DV, STRIDE_V>(v_tiles + step % BUFFERS * BK * STRIDE_V, step * BK, N,
                                     [&](int r, int c, Mem* to) { tcc_fetch_v(args, batch, r, c, to); });
    tcc::copy_async_commit();
  };
  fetch_tile<BQ, DK, D, STRIDE_K>(q_tile, m0, M, [&](int r, int c, Mem* to) { tcc_fetch_q(args, batch, r, c, to); });
  fetch_keys(0);

  unsigned q[DK / 16][4];
  float out[DO / 8][4], top[2] = {least, least}, total[2] = {0.0f, 0.0f};
#pragma unroll
  for (int t = 0; t < DO / 8; ++t)
#pragma unroll
    for (int e = 0; e < 4; ++e) out[t][e] = 0.0f;
  const int row = m0 + warp * 16 + lane / 4, column = lane % 4 * 2;

  for (int step = 0; step < STEPS; ++step) {
    if (BUFFERS > 1 && step + 1 < STEPS) {
      fetch_keys(step + 1);
      tcc::copy_async_wait<1>();
    } else {
      tcc::copy_async_wait<0>();
    }
    __syncthreads();
    if (step == 0)
#pragma unroll
      for (int k = 0; k < DK / 16; ++k)
        tcc::ldmatrix4(q[k], q_tile + (warp * 16 + lane % 16) * STRIDE_K + k * 16 + lane / 16 * 8);
    const Mem* const k_tile = k_tiles + step % BUFFERS * BK * STRIDE_K;
    const Mem* const v_tile = v_tiles + step % BUFFERS * BK * STRIDE_V;

    float s[BK / 8][4];
#pragma unroll
    for (int t = 0; t < BK / 8; ++t)
#pragma unroll
      for (int e = 0; e < 4; ++e) s[t][e] = 0.0f;
#pragma unroll
    for (int k = 0; k < DK / 16; ++k)
#pragma unroll
      for (int t = 0; t < BK / 16; ++t) {
        unsigned b[4];
        tcc::ldmatrix4(b, k_tile + (t * 16 + lane / 16 * 8 + lane % 8) * STRIDE_K + k * 16 + lane / 8 % 2 * 8);
        tcc::mma_16816<Element>(s[2 * t], q[k], b[0], b[1]);
        tcc::mma_16816<Element>(s[2 * t + 1], q[k], b[2], b[3]);
      }

    float most[2] = {top[0], top[1]};
#pragma unroll
    for (int t = 0; t < BK / 8; ++t)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int m = row + half * 8;
#pragma unroll
        for (int e = 0; e < 2; e += VS) {
          const int n = step * BK + t * 8 + column + e;
          float one[VS];
#pragma unroll
          for (int j = 0; j < VS; ++j) one[j] = s[t][half * 2 + e + j];
          if ((M % BQ == 0 || m < M) && (N % BK == 0 || n < N)) {
            tcc_score(args, batch, m, n, one);
          } else {
#pragma unroll
            for (int j = 0; j < VS; ++j) one[j] = least;
          }
#pragma unroll
          for (int j = 0; j < VS; ++j) {
            s[t][half * 2 + e + j] = one[j];
            most[half] = tcc::arith_max(most[half], one[j]);
          }
        }
      }
    unsigned p[BK / 16][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float high = most[half];
      high = tcc::arith_max(high, __shfl_xor_sync(0xffffffffu, high, 1));
      high = tcc::arith_max(high, __shfl_xor_sync(0xffffffffu, high, 2));
      // A row that is all -inf so far keeps weights of 0 instead of NaN.
      const float shift = high == least ? 0.0f : high * LOG2E;
      const float keep = tcc::exp2_approx(top[half] * LOG2E - shift);
      top[half] = high;
      float sum = 0.0f;
#pragma unroll
      for (int t = 0; t < BK / 8; ++t) {
        const float x = tcc::exp2_approx(s[t][half * 2] * LOG2E - shift);
        const float y = tcc::exp2_approx(s[t][half * 2 + 1] * LOG2E - shift);
        sum += x + y;
        p[t / 2][t % 2 * 2 + half] = tcc::pack2<Element>(x, y);
      }
      total[half] = total[half] * keep + sum;
#pragma unroll
      for (int t = 0; t < DO / 8; ++t) {
        out[t][half * 2] *= keep;
        out[t][half * 2 + 1] *= keep;
      }
    }
#pragma unroll
    for (int k = 0; k < BK / 16; ++k)
#pragma unroll
      for (int t = 0; t < DO / 16; ++t) {
        unsigned b[4];
        tcc::ldmatrix4_transposed(b, v_tile + (k * 16 + lane / 8 % 2 * 8 + lane % 8) * STRIDE_V + t * 16 + lane / 16 * 8);
        tcc::mma_16816<Element>(out[2 * t], p[k], b[0], b[1]);
        tcc::mma_16816<Element>(out[2 * t + 1], p[k], b[2], b[3]);
      }
    if (step + 1 < STEPS) {
      __syncthreads();
      if (BUFFERS == 1) fetch_keys(step + 1);
    }
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = total[half];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const float scale = sum == 0.0f ? 0.0f : 1.0f / sum;
    const int m = row + half * 8;
#pragma unroll
    for (int t = 0; t < DO / 8; ++t)
#pragma unroll
      for (int e = 0; e < 2; e += VE) {
        const int d = t * 8 + column + e;
        float acc[VE];
#pragma unroll
        for (int j = 0; j < VE; ++j) acc[j] = out[t][half * 2 + e + j] * scale;
        if (m < M && d < DV) tcc_epilogue(args, batch, m, d, acc);
      }
  }
}
