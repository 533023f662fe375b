// SPDX-License-Identifier: Apache-2.0
// Batched GEMM (and implicit GEMM) on tensor cores with mma.sync. A block computes BM x BN of one batch entry over one of
// SPLIT ranges of K; a warp WM x WN of it, over one of SLICES parts of every tile's k. Tiles of BK pass through a ring of
// STAGES in shared memory; while one step's fragments are multiplied the next step's are read.
//
// Constant operands do not depend on the kernels before: their first tiles, and with PREFETCH the rest of the second
// operand, are on their way before those have finished. Only then may kernels after this one start: earlier, the waiting
// blocks of many would lie in each other's way.
constexpr int WARPS_N = BN / WN, SLICE_WARPS = BM / WM * WARPS_N, MI = WM / 16, NI = WN / 8;
constexpr int TILES_M = (M + BM - 1) / BM, TILES_N = (N + BN - 1) / BN, TILES_K = (K + BK - 1) / BK;
using TileA = Tile<SideA, BM>;
using TileB = Tile<SideB, BN>;
constexpr int STEPS = BK * TileA::size / 32 / SLICES, STAGE_BYTES = TileA::bytes + TileB::bytes;
constexpr bool ASYNC_A = SideA::mode == COPY_ASYNC, ASYNC_B = SideB::mode == COPY_ASYNC;
constexpr bool EARLY_A = ASYNC_A && SideA::constant, EARLY_B = ASYNC_B && SideB::constant;
static_assert(STEPS >= 2 && STEPS % 2 == 0, "fragments alternate between two sets of registers");

template <int Pending>
TCC_FN void arrived() {
  if constexpr (ASYNC_A || ASYNC_B) tcc::copy_wait<Pending>();
  __syncthreads();
}
TCC_FN void commit() {
  if constexpr (ASYNC_A || ASYNC_B) tcc::copy_commit();
}

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  // Neighbouring blocks share rows of A and columns of B: groups of GROUP tiles of m pass over n together.
  int place = blockIdx.x;
  const int split = place % SPLIT;
  place /= SPLIT;
  const int batch = place / (TILES_M * TILES_N);
  place %= TILES_M * TILES_N;
  const int group = place / (GROUP * TILES_N), left = TILES_M - group * GROUP, high = left < GROUP ? left : GROUP;
  const int m0 = (group * GROUP + place % (GROUP * TILES_N) % high) * BM, n0 = place % (GROUP * TILES_N) / high * BN;
  const int first = split * TILES_K / SPLIT, last = (split + 1) * TILES_K / SPLIT;
  const unsigned ring = tcc::shared_address();
  const int warp = threadIdx.x / 32, slice = warp / SLICE_WARPS;
  const int warp_m = warp % SLICE_WARPS / WARPS_N * WM, warp_n = warp % WARPS_N * WN, step0 = slice * STEPS;

  TileA a;
  TileB b;
  if constexpr (EARLY_B) {
    b.start(batch, n0);
#pragma unroll
    for (int s = 0; s < STAGES - 1; ++s)
      if (first + s < last) b.fetch(args, (first + s) * BK, ring + s * STAGE_BYTES + TileA::bytes);
  }
  if constexpr (EARLY_A) {
    a.start(batch, m0);
#pragma unroll
    for (int s = 0; s < STAGES - 1; ++s)
      if (first + s < last) a.fetch(args, (first + s) * BK, ring + s * STAGE_BYTES);
  }
  if constexpr (!EARLY_A) a.start(batch, m0);
  if constexpr (!EARLY_B) b.start(batch, n0);
  if constexpr (PREFETCH) TileB::prefetch(args, batch, n0, (first + STAGES - 1) * BK, last * BK, m0 / BM, TILES_M);
  TCC_PDL_WAIT();
  TCC_PDL_LAUNCH();
#pragma unroll
  for (int s = 0; s < STAGES - 1; ++s) {
    if (first + s < last) {
      const unsigned to = ring + s * STAGE_BYTES;
      if constexpr (!EARLY_A) {
        a.fetch(args, (first + s) * BK, to);
        a.put(to);
      }
      if constexpr (!EARLY_B) {
        b.fetch(args, (first + s) * BK, to + TileA::bytes);
        b.put(to + TileA::bytes);
      }
    }
    commit();
  }

  Reader<SideA, BM, MI, true> read_a;
  Reader<SideB, BN, NI, false> read_b;
  read_a.start(warp_m);
  read_b.start(warp_n);
  float acc[MI][NI][4];
#pragma unroll
  for (int i = 0; i < MI; ++i)
#pragma unroll
    for (int j = 0; j < NI; ++j)
#pragma unroll
      for (int w = 0; w < 4; ++w) acc[i][j][w] = 0;
  unsigned fa[2][MI][4], fb[2][NI][2];
  unsigned from = ring, to = ring + (STAGES - 1) * STAGE_BYTES;
  const unsigned end = ring + STAGES * STAGE_BYTES;
  arrived<STAGES - 2>();
  read_a.load(fa[0], from, step0);
  read_b.load(fb[0], from + TileA::bytes, step0);

#pragma unroll 1
  for (int tile = first; tile < last; ++tile) {
    const bool more = tile + STAGES - 1 < last;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
      if (step == 0) {
        if (more) {
          a.fetch(args, (tile + STAGES - 1) * BK, to);
          b.fetch(args, (tile + STAGES - 1) * BK, to + TileA::bytes);
        }
        commit();
      }
      if (step == STEPS - 1) {
        if (more) {
          a.put(to);
          b.put(to + TileA::bytes);
        }
        arrived<STAGES - 2>();
        from = from + STAGE_BYTES == end ? ring : from + STAGE_BYTES;
        to = to + STAGE_BYTES == end ? ring : to + STAGE_BYTES;
      }
      if (step < STEPS - 1 || tile + 1 < last) {
        read_a.load(fa[(step + 1) % 2], from, step0 + (step + 1) % STEPS);
        read_b.load(fb[(step + 1) % 2], from + TileA::bytes, step0 + (step + 1) % STEPS);
      }
#pragma unroll
      for (int i = 0; i < MI; ++i)
#pragma unroll
        for (int j = 0; j < NI; ++j) tcc::mma<KIND>(acc[i][j], fa[step % 2][i], fb[step % 2][j]);
    }
  }
  finish(args, split, batch, m0, n0, slice, warp_m, warp_n, acc);
}
