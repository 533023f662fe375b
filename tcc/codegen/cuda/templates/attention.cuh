// SPDX-License-Identifier: Apache-2.0
// Attention with FMA and an online softmax (Milakov and Gimelshein, 2018; Dao et al., 2022). A block takes BQ queries of one
// head and walks over the keys BK at a time; a row of scores is shared by TX neighbouring threads of one warp, so that
// its maximum and sum need only shuffles. Query, key and value tiles lie in shared memory.
//
// Generated: tcc_read_q(args, b, m, k, out[VQ]), tcc_read_k(args, b, n, k, out[VK]), tcc_read_v(args, b, n, d, out[VV]);
// tcc_score(args, b, m, n, s[1]); tcc_epilogue(args, b, m, d, acc[VE]).
using Value = Acc::reg;
constexpr int THREADS = TX * TY, BQ = TY * RQ, BK = TX * RK;
constexpr int DP = (D + 3) / 4 * 4, VP = (DV + 3) / 4 * 4;
constexpr int GROUPS = (VP / 4 + TX - 1) / TX;  // groups of four value channels of a thread
constexpr int TILES = (M + BQ - 1) / BQ;

struct alignas(sizeof(Value) * 4) Quad { Value v[4]; };

template <int Rows, int Columns, int Padded, int Stride, int V, class Read>
TCC_FN void fetch_tile(Value (*tile)[Stride], int row0, int rows, const Read& read) {
  constexpr int vectors = Padded / V;
  for (int i = threadIdx.x; i < Rows * vectors; i += THREADS) {
    const int row = i / vectors, column = i % vectors * V;
    Value out[V] = {};
    if (row0 + row < rows && column < Columns) read(row0 + row, column, out);
#pragma unroll
    for (int j = 0; j < V; ++j) tile[row][column + j] = out[j];
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  __shared__ __align__(32) Value q_tile[BQ][DP + 4];
  __shared__ __align__(32) Value k_tile[BK][DP + 4];
  __shared__ __align__(32) Value v_tile[BK][VP];
  __shared__ Value p_tile[BQ][BK + 1];
  const int tx = threadIdx.x % TX, ty = threadIdx.x / TX;
  const int batch = blockIdx.x / TILES, m0 = blockIdx.x % TILES * BQ;
  const Value least = -tcc::cast<Acc, tcc::f32>(tcc::inf32());
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  fetch_tile<BQ, D, DP, DP + 4, VQ>(q_tile, m0, M,
                                    [&](int r, int c, Value(&out)[VQ]) { tcc_read_q(args, batch, r, c, out); });
  Value out[RQ][GROUPS][4], top[RQ], total[RQ];
#pragma unroll
  for (int i = 0; i < RQ; ++i) {
    top[i] = least;
    total[i] = 0;
#pragma unroll
    for (int g = 0; g < GROUPS; ++g)
#pragma unroll
      for (int c = 0; c < 4; ++c) out[i][g][c] = 0;
  }

  for (int n0 = 0; n0 < N; n0 += BK) {
    __syncthreads();
    fetch_tile<BK, D, DP, DP + 4, VK>(k_tile, n0, N,
                                      [&](int r, int c, Value(&out)[VK]) { tcc_read_k(args, batch, r, c, out); });
    fetch_tile<BK, DV, VP, VP, VV>(v_tile, n0, N,
                                   [&](int r, int c, Value(&out)[VV]) { tcc_read_v(args, batch, r, c, out); });
    __syncthreads();
    Value s[RQ][RK];
#pragma unroll
    for (int i = 0; i < RQ; ++i)
#pragma unroll
      for (int j = 0; j < RK; ++j) s[i][j] = 0;
#pragma unroll 4
    for (int k = 0; k < DP; k += 4) {
      Quad a[RQ], b[RK];
#pragma unroll
      for (int i = 0; i < RQ; ++i) a[i] = *reinterpret_cast<const Quad*>(&q_tile[ty * RQ + i][k]);
#pragma unroll
      for (int j = 0; j < RK; ++j) b[j] = *reinterpret_cast<const Quad*>(&k_tile[tx + j * TX][k]);
#pragma unroll
      for (int i = 0; i < RQ; ++i)
#pragma unroll
        for (int j = 0; j < RK; ++j)
#pragma unroll
          for (int c = 0; c < 4; ++c) s[i][j] += a[i].v[c] * b[j].v[c];
    }
#pragma unroll
    for (int i = 0; i < RQ; ++i) {
      const int m = m0 + ty * RQ + i;
      Value most = top[i];
#pragma unroll
      for (int j = 0; j < RK; ++j) {
        const int n = n0 + tx + j * TX;
        Value one[1] = {s[i][j]};
        if (m < M && n < N) tcc_score(args, batch, m, n, one);
        else one[0] = least;
        s[i][j] = one[0];
        most = tcc::arith_max(most, one[0]);
      }
#pragma unroll
      for (int d = TX / 2; d > 0; d /= 2) most = tcc::arith_max(most, __shfl_xor_sync(0xffffffffu, most, d));
      // A row that is all -inf so far keeps weights of 0 instead of NaN.
      const Value shift = most == least ? Value(0) : most;
      const Value keep = tcc::math_exp(top[i] - shift);
      Value sum = 0;
#pragma unroll
      for (int j = 0; j < RK; ++j) {
        const Value p = tcc::math_exp(s[i][j] - shift);
        sum += p;
        p_tile[ty * RQ + i][tx + j * TX] = p;
      }
#pragma unroll
      for (int d = TX / 2; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
      top[i] = most;
      total[i] = total[i] * keep + sum;
#pragma unroll
      for (int g = 0; g < GROUPS; ++g)
#pragma unroll
        for (int c = 0; c < 4; ++c) out[i][g][c] *= keep;
    }
    __syncwarp();
#pragma unroll 4
    for (int n = 0; n < BK; ++n) {
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) {
        const int d = (tx + g * TX) * 4;
        if (VP / 4 % TX != 0 && d >= VP) continue;
        const Quad v = *reinterpret_cast<const Quad*>(&v_tile[n][d]);
#pragma unroll
        for (int i = 0; i < RQ; ++i) {
          const Value p = p_tile[ty * RQ + i][n];
#pragma unroll
          for (int c = 0; c < 4; ++c) out[i][g][c] += p * v.v[c];
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < RQ; ++i) {
    const int m = m0 + ty * RQ + i;
    const Value scale = total[i] == 0 ? Value(0) : 1 / total[i];
#pragma unroll
    for (int g = 0; g < GROUPS; ++g)
#pragma unroll
      for (int c = 0; c < 4; c += VE) {
        const int d = (tx + g * TX) * 4 + c;
        Value acc[VE];
#pragma unroll
        for (int j = 0; j < VE; ++j) acc[j] = out[i][g][c + j] * scale;
        if (m < M && d < DV) tcc_epilogue(args, batch, m, d, acc);
      }
  }
}
