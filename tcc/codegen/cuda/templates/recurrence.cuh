// SPDX-License-Identifier: Apache-2.0
// A recurrent layer, ROWS sequences a block, all steps in one launch. States and sums lie in shared memory where they fit,
// else in a workspace; the weights are read again at every step.
//
// A row of `memory` has PLACES times UNITS values: the first state twice (step t reads place t % 2 and writes the other),
// the other states, what the stages of a step hand on; then MOST_GATES times UNITS sums. A layer that is QUANTIZED has UNITS
// integers more in a row, and all sequences in one block, as these have one scale: it does ROWS of them at a time.
constexpr int PLACES = STATES + 1 + CARRIED;
constexpr int ROW = (PLACES + MOST_GATES + QUANTIZED) * UNITS;

TCC_FN int place_of(int state, int t) { return state == 0 ? t & 1 : state + 1; }

// Where a stage finds what it multiplies.
template <int I>
TCC_FN int tcc_source(int t) {
  return (I == 0 ? t & 1 : 1 + Stage<I>::HELD - Stage<(I > 0 ? I - 1 : 0)>::MADE) * UNITS;
}

#if QUANTIZED
// The integers of all rows; gives their scale.
TCC_FN float tcc_quantize(const Args& args, int source, Acc* memory, float* ends) {
  float low = 0, high = 0;
  for (int o = threadIdx.x; o < BATCH * UNITS; o += THREADS) {
    const float v = memory[o / UNITS * ROW + source + o % UNITS];
    low = tcc::arith_min(low, v);
    high = tcc::arith_max(high, v);
  }
  const Quanta quanta = tcc_quanta<THREADS / 32>(low, high, ends);
  for (int o = threadIdx.x; o < BATCH * UNITS; o += THREADS) {
    Acc* const row = memory + o / UNITS * ROW + o % UNITS;
    row[(PLACES + MOST_GATES) * UNITS] = __int_as_float(quanta.of(row[source]));
  }
  __syncthreads();
  return quanta.scale;
}
#endif

template <int I>
TCC_FN void tcc_stage(const Args& args, int t, int first, Acc* memory, float scale) {
  using S = Stage<I>;
  constexpr bool last = I == STAGES - 1;
  const int source = QUANTIZED ? (PLACES + MOST_GATES) * UNITS : tcc_source<I>(t);
  for (int o = threadIdx.x; o < S::GATES * UNITS; o += THREADS) {
    const int g = o / UNITS, h = o % UNITS;
    Sum total[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) total[r] = 0;
#pragma unroll 8
    for (int k = 0; k < UNITS; ++k) {
      const Sum w = tcc_weight(args, S::FIRST + g, h, k);
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
#if QUANTIZED
        total[r] += w * __float_as_int(memory[r * ROW + source + k]);
#else
        total[r] += w * memory[r * ROW + source + k];
#endif
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) memory[r * ROW + (PLACES + g) * UNITS + h] = static_cast<Acc>(total[r]);
  }
  __syncthreads();
  for (int o = threadIdx.x; o < ROWS * UNITS; o += THREADS) {
    const int h = o % UNITS, b = first + o / UNITS;
    if (b >= BATCH) break;
    Acc* const row = memory + o / UNITS * ROW + h;
    Acc sums[S::GATES + QUANTIZED], held[S::HELD], made[S::MADE];
#pragma unroll
    for (int g = 0; g < S::GATES; ++g) sums[g] = row[(PLACES + g) * UNITS];
#if QUANTIZED
    sums[S::GATES] = scale;
#endif
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
TCC_FN void tcc_stages(const Args& args, int t, int first, Acc* memory, float* ends) {
  if constexpr (I < STAGES) {
#if QUANTIZED
    const float scale = tcc_quantize(args, tcc_source<I>(t), memory, ends);
    for (int b = 0; b < BATCH; b += ROWS) tcc_stage<I>(args, t, b, memory + b * ROW, scale);
#else
    tcc_stage<I>(args, t, first, memory, 0.0f);
#endif
    tcc_stages<I + 1>(args, t, first, memory, ends);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
#if IN_SHARED
  __shared__ Acc memory[HELD_ROWS * ROW > 0 ? HELD_ROWS * ROW : 1];
#else
  Acc* const memory = args.w0 + static_cast<long long>(blockIdx.x) * (ROWS * ROW);
#endif
  __shared__ float ends[QUANTIZED ? THREADS / 16 : 1];
  const int first = blockIdx.x * ROWS;
  for (int o = threadIdx.x; o < (QUANTIZED ? BATCH : ROWS) * UNITS; o += THREADS) {
    const int h = o % UNITS, b = first + o / UNITS;
    if (b >= BATCH) break;
    Acc states[STATES];
    tcc_begin(args, b, h, states);
#pragma unroll
    for (int n = 0; n < STATES; ++n) memory[o / UNITS * ROW + place_of(n, 0) * UNITS + h] = states[n];
    if (STEPS == 0) tcc_finish(args, b, h, states);
  }
  __syncthreads();
  for (int t = 0; t < STEPS; ++t) tcc_stages<0>(args, t, first, memory, ends);
}
