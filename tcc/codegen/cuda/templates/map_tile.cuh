// SPDX-License-Identifier: Apache-2.0
// Pointwise with transposed operands: those are consecutive along fp, the results along fq. A block brings a TILE x TILE
// part of each through shared memory, so that reads and writes are both of neighbours.
// Generated: Tiled (a struct of the transposed operands' scalars), tcc_read_tiled, tcc_write_tiled.
constexpr int ROWS = THREADS / 32;
constexpr int TILES_P = (P + TILE - 1) / TILE, TILES_Q = (Q + TILE - 1) / TILE;

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  __shared__ Tiled tile[TILE][TILE + 1];
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32;
  const int q0 = blockIdx.x % TILES_Q * TILE, p0 = blockIdx.x / TILES_Q % TILES_P * TILE;
  const int outer = blockIdx.x / TILES_Q / TILES_P;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
#pragma unroll
  for (int r = 0; r < TILE; r += ROWS)
#pragma unroll
    for (int c = 0; c < TILE; c += 32)
      if (q0 + r + row < Q && p0 + c + lane < P)
        tcc_read_tiled(args, outer, p0 + c + lane, q0 + r + row, tile[r + row][c + lane]);
  __syncthreads();
#pragma unroll
  for (int r = 0; r < TILE; r += ROWS)
#pragma unroll
    for (int c = 0; c < TILE; c += 32)
      if (p0 + r + row < P && q0 + c + lane < Q)
        tcc_write_tiled(args, outer, p0 + r + row, q0 + c + lane, tile[c + lane][r + row]);
}
