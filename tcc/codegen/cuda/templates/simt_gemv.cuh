// SPDX-License-Identifier: Apache-2.0
// Products with few rows (M of them, all in one thread's registers): the time is that of reading B once. TX threads are along
// n with NW columns each, TY along k with KW places each. K_FASTEST: B is consecutive along k, neighbouring threads are
// neighbours along k, and a thread reads KW places of NW columns; else B is consecutive along n, and KW is 1.
//
// Generated: tcc_read_a(args, b, m, k, out[KW]), tcc_read_b(args, b, n, k, out[KW or NW]), tcc_epilogue.
using Value = Acc::reg;
constexpr int THREADS = TX * TY, STEP = TY * KW;
constexpr int TILES_N = (N + TX * NW - 1) / (TX * NW), STEPS = (K + STEP - 1) / STEP;
constexpr int UNROLL = NW * KW >= 16 ? 2 : NW * KW >= 4 ? 4 : 8;

TCC_FN void multiply_add(Value& acc, Value a, Value b) {
  if constexpr (Acc::kind == tcc::FLOAT) acc += a * b;
  else acc = tcc::iadd<Acc>(acc, tcc::imul<Acc>(a, b));
}

TCC_FN void gemv_step(const Args& args, int batch, int n, int k, Value (&acc)[M][NW]) {
  Value a[M][KW];
#if TCC_K_FASTEST
  Value b[NW][KW];
#pragma unroll
  for (int j = 0; j < NW; ++j) {
    if (n + j < N) tcc_read_b(args, batch, n + j, k, b[j]);
    else
#pragma unroll
      for (int i = 0; i < KW; ++i) b[j][i] = 0;
  }
#else
  Value b[NW];
  tcc_read_b(args, batch, n, k, b);
#endif
#pragma unroll
  for (int m = 0; m < M; ++m) tcc_read_a(args, batch, m, k, a[m]);
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int j = 0; j < NW; ++j) {
#if TCC_K_FASTEST
#pragma unroll
      for (int i = 0; i < KW; ++i) multiply_add(acc[m][j], a[m][i], b[j][i]);
#else
      multiply_add(acc[m][j], a[m][0], b[j]);
#endif
    }
}

TCC_FN Value plus(Value a, Value b) {
  if constexpr (Acc::kind == tcc::FLOAT) return a + b;
  else return tcc::iadd<Acc>(a, b);
}

// The sums of the TY threads of each column, in the threads with y 0; always in the same order.
TCC_FN void sum_block(Value (&acc)[M][NW], int x, int y) {
  constexpr int within = K_FASTEST ? (TY < 32 ? TY : 32) : 1, groups = TY / within;
  __shared__ Value parts[NW][groups][TX];
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int j = 0; j < NW; ++j)
#pragma unroll
      for (int d = within / 2; d > 0; d /= 2)
        acc[m][j] = plus(acc[m][j], __shfl_xor_sync(0xffffffffu, acc[m][j], d));
    if constexpr (groups > 1) {
      if (m > 0) __syncthreads();
      if (y % within == 0)
#pragma unroll
        for (int j = 0; j < NW; ++j) parts[j][y / within][x] = acc[m][j];
      __syncthreads();
      if (y == 0)
#pragma unroll
        for (int g = 1; g < groups; ++g)
#pragma unroll
          for (int j = 0; j < NW; ++j) acc[m][j] = plus(acc[m][j], parts[j][g][x]);
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  const int x = K_FASTEST ? threadIdx.x / TY : threadIdx.x % TX, y = K_FASTEST ? threadIdx.x % TY : threadIdx.x / TX;
  const int split = blockIdx.x % SPLIT, place = blockIdx.x / SPLIT;
  const int n = (place % TILES_N * TX + x) * NW, batch = place / TILES_N;
  const int first = static_cast<int>(static_cast<long long>(split) * STEPS / SPLIT) * STEP;
  int last = static_cast<int>(static_cast<long long>(split + 1) * STEPS / SPLIT) * STEP;
  if (last > K) last = K;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  Value acc[M][NW];
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int j = 0; j < NW; ++j) acc[m][j] = 0;
  if (n < N) {
#pragma unroll UNROLL
    for (int k = first + y * KW; k < last; k += STEP) gemv_step(args, batch, n, k, acc);
  }
  sum_block(acc, x, y);
#if TCC_CLUSTER
  __shared__ Value cluster_parts[M][NW][TX];
  if (y == 0)
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int j = 0; j < NW; ++j) cluster_parts[m][j][x] = acc[m][j];
  tcc::cluster_sync();
  if (split == 0 && y == 0)
#pragma unroll
    for (int s = 1; s < SPLIT; ++s)
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int j = 0; j < NW; ++j) acc[m][j] = plus(acc[m][j], tcc::read_cluster(&cluster_parts[m][j][x], s));
  tcc::cluster_sync();  // a block's shared memory stays while others read it
  if (split != 0) return;
#endif
  if (y != 0) return;
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int j = 0; j < NW; j += VE)
      if (n + j < N) tcc_finish_or_keep(args, split, batch, m, n + j, reinterpret_cast<const Value(&)[VE]>(acc[m][j]));
}
