// SPDX-License-Identifier: Apache-2.0
// Reductions over a short window: a thread takes V neighbouring points and the whole window, unrolled so that its
// coordinates are constants. Generated: as for reduce.cuh.
using Value = Acc::reg;

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  const Coordinate point = (static_cast<Coordinate>(blockIdx.x) * THREADS + threadIdx.x) * V;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  if (point >= POINTS) return;
  Value state[V][NC];
#pragma unroll
  for (int j = 0; j < V; ++j) tcc_identity(state[j]);
#pragma unroll WINDOW_UNROLL
  for (int r = 0; r < REDUCED; ++r) {
    Value read[NC][V];
    tcc_read(args, point, r, read);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      Value one[NC];
#pragma unroll
      for (int c = 0; c < NC; ++c) one[c] = read[c][j];
      tcc_combine(state[j], one);
    }
  }
  Value acc[NC][V];
#pragma unroll
  for (int j = 0; j < V; ++j)
#pragma unroll
    for (int c = 0; c < NC; ++c) acc[c][j] = state[j][c];
  tcc_epilogue(args, point, acc);
}
