// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution. A thread takes V channels and TX neighbouring results of a row; it reads every input column
// once (SPAN of them) and keeps the row's weights in registers, so inputs slide through.
//
// Generated: tcc_read_x(args, n, oy, ox, g, ky, kx, out[V]) at column ox * stride + kx, for kx up to SPAN;
// tcc_read_w(args, g, ky, kx, out[V]); tcc_epilogue(args, n, oy, ox, g, acc[V]).
using Value = Acc::reg;
constexpr int GROUPS = (G + V - 1) / V, TILES_X = (OX + TX - 1) / TX, TILES_Y = (OY + TY - 1) / TY;

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  const int index = blockIdx.x * THREADS + threadIdx.x;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  if (index >= N * TILES_Y * TILES_X * GROUPS) return;
  const int g = index % GROUPS * V, tile = index / GROUPS;
  const int ox = tile % TILES_X * TX, oy = tile / TILES_X % TILES_Y * TY, n = tile / TILES_X / TILES_Y;

  Value acc[TY][TX][V];
#pragma unroll
  for (int y = 0; y < TY; ++y)
#pragma unroll
    for (int x = 0; x < TX; ++x)
#pragma unroll
      for (int j = 0; j < V; ++j) acc[y][x][j] = 0;

  // Row `row` of the window of the first result is row `row - y * STRIDE_Y` of that of result y below it.
#pragma unroll
  for (int row = 0; row < ROWS; ++row) {
    Value column[SPAN][V];
#pragma unroll
    for (int c = 0; c < SPAN; ++c) tcc_read_x(args, n, oy, ox, g, row, c, column[c]);
#pragma unroll
    for (int y = 0; y < TY; ++y) {
      const int ky = row - y * STRIDE_Y;
      if (ky < 0 || ky >= KY) continue;
#pragma unroll
      for (int kx = 0; kx < KX; ++kx) {
        Value w[V];
        tcc_read_w(args, g, ky, kx, w);
#pragma unroll
        for (int x = 0; x < TX; ++x)
#pragma unroll
          for (int j = 0; j < V; ++j) acc[y][x][j] += column[x * STRIDE_X + kx][j] * w[j];
      }
    }
  }
#pragma unroll
  for (int y = 0; y < TY; ++y)
#pragma unroll
    for (int x = 0; x < TX; ++x)
      if (oy + y < OY && ox + x < OX) tcc_epilogue(args, n, oy + y, ox + x, g, acc[y][x]);
}
