// SPDX-License-Identifier: Apache-2.0
// The end of a contraction whose K is split over SPLIT blocks: partial sums go to the workspace w0, and a second kernel
// adds them in order, so the result does not depend on timing. With SPLIT 1, or where a cluster has added them
// (TCC_CLUSTER), the epilogue follows at once.
TCC_FN void tcc_finish_or_keep(const Args& args, int split, int batch, int m, int n, const Acc::reg (&acc)[VE]) {
#if TCC_SPLIT > 1 && !TCC_CLUSTER
  const long long at = ((static_cast<long long>(split) * BATCH + batch) * M + m) * N + n;
  tcc::write_vector<Acc, VE>(args.w0 + at, acc);
#else
  tcc_epilogue(args, batch, m, n, acc);
#endif
}

#if TCC_SPLIT > 1 && !TCC_CLUSTER
extern "C" __global__ void __launch_bounds__(256) TCC_ENTRY_FINISH(TCC_PARAMS) {
  TCC_ARGS;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  constexpr long long plane = static_cast<long long>(BATCH) * M * N;
  const long long at = (static_cast<long long>(blockIdx.x) * 256 + threadIdx.x) * VE;
  if (at >= plane) return;
  Acc::reg sum[VE] = {};
#pragma unroll 8
  for (int s = 0; s < SPLIT; ++s) {
    Acc::reg part[VE];
    tcc::read_vector<Acc, VE, false>(args.w0 + s * plane + at, part);
#pragma unroll
    for (int j = 0; j < VE; ++j) sum[j] += part[j];
  }
  const int n = static_cast<int>(at % N), m = static_cast<int>(at / N % M), batch = static_cast<int>(at / N / M);
  tcc_epilogue(args, batch, m, n, sum);
}
#endif
