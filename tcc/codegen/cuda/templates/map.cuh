// SPDX-License-Identifier: Apache-2.0
// Pointwise: a thread does V consecutive points, ITEMS times. Generated: tcc_points (V points), tcc_point (one).
extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  TCC_PDL_LAUNCH();
  const Coordinate first = (static_cast<Coordinate>(blockIdx.x) * ITEMS * THREADS + threadIdx.x) * V;
  TCC_PDL_WAIT();
#pragma unroll
  for (int i = 0; i < ITEMS; ++i) {
    const Coordinate point = first + static_cast<Coordinate>(i) * THREADS * V;
    if (point + V <= POINTS) {
      tcc_points(args, point);
    } else {
      for (Coordinate p = point; p < POINTS; ++p) tcc_point(args, p);
    }
  }
}
