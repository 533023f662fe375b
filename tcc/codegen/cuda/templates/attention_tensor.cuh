// SPDX-License-Identifier: Apache-2.0
// Attention on tensor cores (Dao, 2023, FlashAttention-2): a warp keeps 16 queries, their scores against its keys of a tile
// and their output in registers; the scores' fragments are the next product's left fragments. WARPS_Q warps have
// different queries; WARPS_K warps share queries and take different keys of every tile, and their results are merged
// at the end. Rows in shared memory are padded by 16 bytes, which spreads ldmatrix over all banks.
//
// Generated: tcc_base_q/k/v(args, b), the address of row 0, with rows Q_ROW, K_ROW, V_ROW elements apart (where
// TCC_AFFINE), else tcc_fetch_q/k(args, b, row, k, to), tcc_fetch_v(args, b, n, d, to): 8 elements to shared memory;
// tcc_score(args, b, m, n, s[VS]); tcc_epilogue(args, b, m, d, acc[VE]).
using Mem = Element::mem;
constexpr int THREADS = WARPS_Q * WARPS_K * 32, BQ = WARPS_Q * 16, BW = BK / WARPS_K;
constexpr int DK = (D + 15) / 16 * 16, DO = (DV + 15) / 16 * 16;
constexpr int STRIDE_K = DK + 8, STRIDE_V = DO + 8;
constexpr int TILES = (M + BQ - 1) / BQ, STEPS = (N + BK - 1) / BK;
constexpr float LOG2E = 1.44269504088896341f;

// `Rows` of `Total` rows from row0 on, `Width` elements each, zeros around them up to `Columns`.
template <int Rows, int Columns, int Width, int Stride, int Total, class Fetch>
TCC_FN void fetch_tile(Mem* tile, int row0, const Fetch& fetch) {
  constexpr int chunks = Columns / 8, all = Rows * chunks;
#pragma unroll
  for (int i = 0; i < (all + THREADS - 1) / THREADS; ++i) {
    const int index = i * THREADS + threadIdx.x;
    // Where a pass is whole rows, the column stays the same and the row grows by a constant.
    const int row = THREADS % chunks == 0 ? threadIdx.x / chunks + i * (THREADS / chunks) : index / chunks;
    const int column = (THREADS % chunks == 0 ? threadIdx.x : index) % chunks * 8;
    Mem* to = tile + row * Stride + column;
    if (all % THREADS == 0 || index < all) {
      if ((Total % Rows == 0 || row0 + row < Total) && (Columns == Width || column < Width)) fetch(row, column, to);
      else *reinterpret_cast<uint4*>(to) = uint4{0, 0, 0, 0};
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  extern __shared__ __align__(128) unsigned char tcc_shared[];
  Mem* const q_tile = reinterpret_cast<Mem*>(tcc_shared);
  Mem* const k_tiles = q_tile + BQ * STRIDE_K;
  Mem* const v_tiles = k_tiles + BUFFERS * BK * STRIDE_K;
  const int lane = threadIdx.x % 32, warp_q = threadIdx.x / 32 % WARPS_Q, warp_k = threadIdx.x / 32 / WARPS_Q;
  const int batch = blockIdx.x / TILES, m0 = blockIdx.x % TILES * BQ;
  const float least = -tcc::inf32();
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();

#if TCC_AFFINE
  const Mem* const q_base = tcc_base_q(args, batch) + static_cast<long long>(m0) * Q_ROW;
  const Mem* k_base = tcc_base_k(args, batch);
  const Mem* v_base = tcc_base_v(args, batch);
  const auto fetch_keys = [&](int step) {
    fetch_tile<BK, DK, D, STRIDE_K, N>(k_tiles + step % BUFFERS * BK * STRIDE_K, step * BK,
                                       [&](int r, int c, Mem* to) { tcc::copy_async16(to, k_base + r * K_ROW + c); });
    fetch_tile<BK, DO, DV, STRIDE_V, N>(v_tiles + step % BUFFERS * BK * STRIDE_V, step * BK,
                                        [&](int r, int c, Mem* to) { tcc::copy_async16(to, v_base + r * V_ROW + c); });
    tcc::copy_async_commit();
    k_base += BK * K_ROW;
    v_base += BK * V_ROW;
  };
  fetch_tile<BQ, DK, D, STRIDE_K, M>(q_tile, m0,
                                     [&](int r, int c, Mem* to) { tcc::copy_async16(to, q_base + r * Q_ROW + c); });
#else
  const auto fetch_keys = [&](int step) {
    const int n0 = step * BK;
    fetch_tile<BK, DK, D, STRIDE_K, N>(k_tiles + step % BUFFERS * BK * STRIDE_K, n0,
                                       [&](int r, int c, Mem* to) { tcc_fetch_k(args, batch, n0 + r, c, to); });
    fetch_tile<BK, DO, DV, STRIDE_V, N>(v_tiles + step % BUFFERS * BK * STRIDE_V, n0,
                                        [&](int r, int c, Mem* to) { tcc_fetch_v(args, batch, n0 + r, c, to); });
    tcc::copy_async_commit();
  };
  fetch_tile<BQ, DK, D, STRIDE_K, M>(q_tile, m0,
                                     [&](int r, int c, Mem* to) { tcc_fetch_q(args, batch, m0 + r, c, to); });
#endif
  fetch_keys(0);

  unsigned q[DK / 16][4];
  float out[DO / 8][4], top[2] = {least, least}, total[2] = {0.0f, 0.0f};
#pragma unroll
  for (int t = 0; t < DO / 8; ++t)
#pragma unroll
    for (int e = 0; e < 4; ++e) out[t][e] = 0.0f;
  const int row = m0 + warp_q * 16 + lane / 4, column = lane % 4 * 2;

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
        tcc::ldmatrix4(q[k], q_tile + (warp_q * 16 + lane % 16) * STRIDE_K + k * 16 + lane / 16 * 8);
    const Mem* const k_tile = k_tiles + (step % BUFFERS * BK + warp_k * BW) * STRIDE_K;
    const Mem* const v_tile = v_tiles + (step % BUFFERS * BK + warp_k * BW) * STRIDE_V;

    float s[BW / 8][4];
#pragma unroll
    for (int t = 0; t < BW / 8; ++t)
#pragma unroll
      for (int e = 0; e < 4; ++e) s[t][e] = 0.0f;
#pragma unroll
    for (int k = 0; k < DK / 16; ++k)
#pragma unroll
      for (int t = 0; t < BW / 16; ++t) {
        unsigned b[4];
        tcc::ldmatrix4(b, k_tile + (t * 16 + lane / 16 * 8 + lane % 8) * STRIDE_K + k * 16 + lane / 8 % 2 * 8);
        tcc::mma_16816<Element>(s[2 * t], q[k], b[0], b[1]);
        tcc::mma_16816<Element>(s[2 * t + 1], q[k], b[2], b[3]);
      }

    float most[2] = {top[0], top[1]};
#pragma unroll
    for (int t = 0; t < BW / 8; ++t)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int m = row + half * 8;
#pragma unroll
        for (int e = 0; e < 2; e += VS) {
          const int n = step * BK + warp_k * BW + t * 8 + column + e;
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
    unsigned p[BW / 16][4];
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
      for (int t = 0; t < BW / 8; ++t) {
        const float x = tcc::exp2_approx(s[t][half * 2] * LOG2E - shift);
        const float y = tcc::exp2_approx(s[t][half * 2 + 1] * LOG2E - shift);
        sum += x + y;
        p[t / 2][t % 2 * 2 + half] = tcc::pack2<Element>(x, y);
      }
      total[half] = total[half] * keep + sum;
      if (STEPS > 1)
#pragma unroll
        for (int t = 0; t < DO / 8; ++t) {
          out[t][half * 2] *= keep;
          out[t][half * 2 + 1] *= keep;
        }
    }
#pragma unroll
    for (int k = 0; k < BW / 16; ++k)
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

  if constexpr (WARPS_K > 1) {
    // Warps with other keys of the same queries leave their sums in shared memory, and the first one adds them.
    constexpr int words = DO / 2 + 4;
    float* const parts = reinterpret_cast<float*>(tcc_shared);
    __syncthreads();
    if (warp_k > 0) {
      float* mine = parts + ((warp_k - 1) * WARPS_Q + warp_q) * words * 32 + lane;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        mine[half * 32] = top[half];
        mine[(2 + half) * 32] = total[half];
      }
#pragma unroll
      for (int i = 0; i < DO / 2; ++i) mine[(4 + i) * 32] = out[i / 4][i % 4];
    }
    __syncthreads();
    if (warp_k > 0) return;
#pragma unroll
    for (int w = 0; w < WARPS_K - 1; ++w) {
      const float* other = parts + (w * WARPS_Q + warp_q) * words * 32 + lane;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float high = tcc::arith_max(top[half], other[half * 32]);
        const float shift = high == least ? 0.0f : high * LOG2E;
        const float keep = tcc::exp2_approx(top[half] * LOG2E - shift);
        const float take = tcc::exp2_approx(other[half * 32] * LOG2E - shift);
        top[half] = high;
        total[half] = total[half] * keep + other[(2 + half) * 32] * take;
#pragma unroll
        for (int i = 0; i < DO / 4; ++i) {
          const int e = half * 2 + i % 2;
          out[i / 2][e] = out[i / 2][e] * keep + other[(4 + i / 2 * 4 + e) * 32] * take;
        }
      }
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
