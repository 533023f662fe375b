// SPDX-License-Identifier: Apache-2.0
// Running combinations along rows of PLACES. TCC_BLOCK 0: a thread a row, place after place. 1: a block a row, THREADS ×
// ITEMS places at a time: each thread combines its ITEMS, warps and then the block combine those of the threads before,
// and the row's combination so far is carried on.
//
// Generated: tcc_read_each(args, row, place, out), tcc_write_each(args, row, place, value), tcc_identity(),
// tcc_combine(a, b) with a the earlier one.
using Value = Acc::reg;

#define TCC_AT(i) (REVERSE ? PLACES - 1 - (i) : (i))

#if TCC_BLOCK == 0
extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  const long long point = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
  if (point >= ROWS) return;
  const RowCoordinate row = static_cast<RowCoordinate>(point);
  Value total = tcc_identity();
#pragma unroll 4
  for (int i = 0; i < PLACES; ++i) {
    Value mine[1];
    tcc_read_each(args, row, TCC_AT(i), mine);
    const Value before[1] = {total};
    total = tcc_combine(total, mine[0]);
    const Value after[1] = {total};
    tcc_write_each(args, row, TCC_AT(i), EXCLUSIVE ? before : after);
  }
}
#else
extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  const RowCoordinate row = static_cast<RowCoordinate>(blockIdx.x);
  const int me = static_cast<int>(threadIdx.x), lane = me % 32, warp = me / 32;
  constexpr int WARPS = THREADS / 32;
  __shared__ Value totals[WARPS];
  Value carry = tcc_identity();
  for (int base = 0; base < PLACES; base += THREADS * ITEMS) {
    const int first = base + me * ITEMS;
    Value mine[ITEMS], total = tcc_identity();
#pragma unroll
    for (int j = 0; j < ITEMS; ++j) {
      Value read[1] = {tcc_identity()};
      if (first + j < PLACES) tcc_read_each(args, row, TCC_AT(first + j), read);
      mine[j] = read[0];
      total = tcc_combine(total, read[0]);
    }
    Value upto = total;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const Value other = __shfl_up_sync(0xffffffffu, upto, d);
      if (lane >= d) upto = tcc_combine(other, upto);
    }
    if (lane == 31) totals[warp] = upto;
    Value before = __shfl_up_sync(0xffffffffu, upto, 1);
    if (lane == 0) before = tcc_identity();
    __syncthreads();
    Value lead = carry;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
      if (w < warp) lead = tcc_combine(lead, totals[w]);
      carry = tcc_combine(carry, totals[w]);
    }
    before = tcc_combine(lead, before);
#pragma unroll
    for (int j = 0; j < ITEMS; ++j) {
      const Value exclusive[1] = {before};
      before = tcc_combine(before, mine[j]);
      const Value inclusive[1] = {before};
      if (first + j < PLACES) tcc_write_each(args, row, TCC_AT(first + j), EXCLUSIVE ? exclusive : inclusive);
    }
    __syncthreads();
  }
}
#endif
