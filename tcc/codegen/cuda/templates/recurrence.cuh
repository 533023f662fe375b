// SPDX-License-Identifier: Apache-2.0
// A recurrent layer, ROWS sequences a block, all steps in one launch. States and sums lie in shared memory where they fit,
// else in a workspace; the weights are read again at every step.
//
// A row of `memory` has PLACES times UNITS values: the first state twice (step t reads place t % 2 and writes the other),
// the other states, what the stages of a step hand on; then MOST_GATES times UNITS sums.
constexpr int PLACES = STATES + 1 + CARRIED;
constexpr int ROW = (PLACES + MOST_GATES) * UNITS;

TCC_FN int place_of(int state, int t) { return state == 0 ? t & 1 : state + 1; }

template <int I>
TCC_FN void tcc_stage(const Args& args, int t, int first, Acc* memory) {
  using S = Stage<I>;
  constexpr bool last = I == STAGES - 1;
  const int source = (I == 0 ? t & 1 : STATES + 1 + S::HELD - STATES - Stage<(I > 0 ? I - 1 : 0)>::MADE) * UNITS;
  for (int o = threadIdx.x; o < S::GATES * UNITS; o += THREADS) {
    const int g = o / UNITS, h = o % UNITS;
    Acc total[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) total[r] = 0;
#pragma unroll 8
    for (int k = 0; k < UNITS; ++k) {
      const Acc w = tcc_weight(args, S::FIRST + g, h, k);
#pragma unroll
      for (int r = 0; r < ROWS; ++r) total[r] += w * memory[r * ROW + source + k];
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) memory[r * ROW + (PLACES + g) * UNITS + h] = total[r];
  }
  __syncthreads();
  for (int o = threadIdx.x; o < ROWS * UNITS; o += THREADS) {
    const int h = o % UNITS, b = first + o / UNITS;
    if (b >= BATCH) break;
    Acc* const row = memory + o / UNITS * ROW + h;
    Acc sums[S::GATES], held[S::HELD], made[S::MADE];
#pragma unroll
    for (int g = 0; g < S::GATES; ++g) sums[g] = row[(PLACES + g) * UNITS];
#pragma unroll
    for (int n = 0; n < S::HELD; ++n) held[n] = row[(n < STATES ? place_of(n, t) : n + 1) * UNITS];
    S::run(args, t, b, h, sums, held, made);
#pragma unroll
    for (int n = 0; n < S::MADE; ++n) row[(last ? place_of(n, t + 1) : S::HELD + 1 + n) * UNITS] = made[n];
    if constexpr (last) {
      if (t == STEPS - 1) tcc_finish(args, b, h, made);
    }
  }
  __syncthreads();
}

template <int I>
TCC_FN void tcc_stages(const Args& args, int t, int first, Acc* memory) {
  if constexpr (I < STAGES) {
    tcc_stage<I>(args, t, first, memory);
    tcc_stages<I + 1>(args, t, first, memory);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
#if IN_SHARED
  __shared__ Acc memory[ROWS * ROW > 0 ? ROWS * ROW : 1];
#else
  Acc* const memory = args.w0 + static_cast<long long>(blockIdx.x) * (ROWS * ROW);
#endif
  const int first = blockIdx.x * ROWS;
  for (int o = threadIdx.x; o < ROWS * UNITS; o += THREADS) {
    const int h = o % UNITS, b = first + o / UNITS;
    if (b >= BATCH) break;
    Acc states[STATES];
    tcc_begin(args, b, h, states);
#pragma unroll
    for (int n = 0; n < STATES; ++n) memory[o / UNITS * ROW + place_of(n, 0) * UNITS + h] = states[n];
    if (STEPS == 0) tcc_finish(args, b, h, states);
  }
  __syncthreads();
  for (int t = 0; t < STEPS; ++t) tcc_stages<0>(args, t, first, memory);
}
