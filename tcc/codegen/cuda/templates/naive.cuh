// SPDX-License-Identifier: Apache-2.0
// One thread a point; `tcc_point`, generated, computes and stores everything of that point.
extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  const long long point = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
  if (point < POINTS) tcc_point(args, static_cast<Coordinate>(point));
}
