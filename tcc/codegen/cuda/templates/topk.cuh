// SPDX-License-Identifier: Apache-2.0
// The first RANKS of PLACES keys of every row, in order. MODE 0: a thread a row takes the greatest, then the greatest
// below it, and so on. MODE 1 and 2: a block a row; 2 finds the last one that is wanted by a radix select (a histogram of
// one byte after another, from the top), 1 takes all places; what is taken is sorted by a bitonic network of SORTED
// elements, in shared memory or (TCC_SPILL) in a workspace.
//
// Generated: tcc_key_each(args, row, place, out) and tcc_rank_each(args, row, rank, key, place).
using Taken = tcc::Packed<KEY_BYTES>;

TCC_FN Taken tcc_packed(const Args& args, const RowCoordinate row, const int place) {
  Key::reg key[1];
  tcc_key_each(args, row, place, key);
  const auto bits = tcc::order_bits(key[0]);
  return Taken::make(LARGEST ? bits : ~bits, static_cast<unsigned>(PLACES - 1 - place));
}

TCC_FN void tcc_rank(const Args& args, const RowCoordinate row, const int rank, const Taken& taken) {
  const int place = PLACES - 1 - static_cast<int>(taken.rest());
  Key::reg key[1];
  tcc_key_each(args, row, place, key);
  const long long at[1] = {place};
  tcc_rank_each(args, row, rank, key, at);
}

#if TCC_MODE == 0
extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  const long long point = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
  if (point >= ROWS) return;
  const RowCoordinate row = static_cast<RowCoordinate>(point);
  Taken last{};
  for (int rank = 0; rank < RANKS; ++rank) {
    Taken best{};
    bool found = false;
    for (int place = 0; place < PLACES; ++place) {
      const Taken mine = tcc_packed(args, row, place);
      if ((rank == 0 || last.before(mine)) && (!found || mine.before(best))) best = mine, found = true;
    }
    last = best;
    tcc_rank(args, row, rank, best);
  }
}
#else
extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  const RowCoordinate row = static_cast<RowCoordinate>(blockIdx.x);
  const int me = static_cast<int>(threadIdx.x);
#if TCC_SPILL
  Taken* const kept = reinterpret_cast<Taken*>(args.w0) + static_cast<long long>(blockIdx.x) * SORTED;
#else
  __shared__ Taken kept[SORTED];
#endif
  for (int i = me; i < SORTED; i += THREADS) kept[i] = Taken{};
#if TCC_MODE == 2
  __shared__ unsigned counts[256], digit, wanted_left, of_digit, next;
  Taken least{};
  unsigned wanted = RANKS;
  int at = KEY_BYTES + 4;
  while (at > 0) {
    --at;
    if (at < 4 && at >= PLACE_BYTES) continue;  // bytes that are 0 in every place
    if (me < 256) counts[me] = 0;
    __syncthreads();
    for (int place = me; place < PLACES; place += THREADS) {
      const Taken mine = tcc_packed(args, row, place);
      if (mine.same(least, at + 1)) atomicAdd(&counts[mine.byte(at)], 1u);
    }
    __syncthreads();
    // counts[d] becomes how many have a digit of at least d.
    for (int d = 1; d < 256; d *= 2) {
      unsigned sum = 0;
      if (me < 256) sum = counts[me] + (me + d < 256 ? counts[me + d] : 0u);
      __syncthreads();
      if (me < 256) counts[me] = sum;
      __syncthreads();
    }
    if (me < 256) {
      const unsigned above = me < 255 ? counts[me + 1] : 0u;
      if (counts[me] >= wanted && above < wanted) digit = me, wanted_left = wanted - above, of_digit = counts[me] - above;
    }
    __syncthreads();
    least.set_byte(at, digit);
    wanted = wanted_left;
    const bool all = of_digit == wanted;
    __syncthreads();
    if (all) break;
  }
  if (me == 0) next = 0;
  __syncthreads();
  for (int place = me; place < PLACES; place += THREADS) {
    const Taken mine = tcc_packed(args, row, place);
    if (mine.reaches(least, at)) kept[atomicAdd(&next, 1u)] = mine;
  }
#else
  __syncthreads();
  for (int place = me; place < PLACES; place += THREADS) kept[place] = tcc_packed(args, row, place);
#endif
  __syncthreads();
  for (int size = 2; size <= SORTED; size *= 2) {
    for (int step = size / 2; step > 0; step /= 2) {
      for (int i = me; i < SORTED / 2; i += THREADS) {
        const int a = 2 * i - (i & (step - 1)), b = a + step;
        const Taken x = kept[a], y = kept[b];
        if ((a & size) == 0 ? y.before(x) : x.before(y)) kept[a] = y, kept[b] = x;
      }
      __syncthreads();
    }
  }
  for (int rank = me; rank < RANKS; rank += THREADS) tcc_rank(args, row, rank, kept[rank]);
}
#endif
