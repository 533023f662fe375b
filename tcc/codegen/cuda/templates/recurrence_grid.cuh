// SPDX-License-Identifier: Apache-2.0
// A recurrent layer by BLOCKS blocks that live through all steps, each with UNITS_HERE units of the state, GROUPS times for a
// part of the sequences each. With RESIDENT a block keeps its rows of the weights in shared memory. A warp makes one sum of
// one unit for ROWS sequences: its lanes split the units of the state before, which they hold in registers.
//
// States lie in w0, [sequence][place][unit]; the first has places 0 and 1, of which step t reads t % 2. What another block
// has written is read past the L1 cache, after all blocks of the group have met: w1 counts them. Of a layer that is QUANTIZED
// every block finds the scale of a step for itself, and the one group has all sequences.
constexpr int PLACES = STATES + 1 + CARRIED;
constexpr int CHUNKS = (UNITS + 31) / 32;
constexpr int THREADS = WARPS * 32;
constexpr int SPAN = (BATCH + GROUPS - 1) / GROUPS;

#ifndef TCC_EMULATED
TCC_FN void tcc_pause() {}
#endif

TCC_FN int place_of(int state, int t) { return state == 0 ? t & 1 : state + 1; }

// All blocks of the group: what they wrote before is seen by all after.
TCC_FN void tcc_meet(unsigned* counter, unsigned& goal) {
  __syncthreads();
  if constexpr (BLOCKS > 1) {
    if (threadIdx.x == 0) {
      __threadfence();
      goal += BLOCKS;
      atomicAdd(counter, 1u);
      while (*reinterpret_cast<volatile unsigned*>(counter) < goal) tcc_pause();
      __threadfence();
    }
    __syncthreads();
  }
}

struct Place {
  Acc* memory;  // the states
  WeightCodec::mem* slice;
  Acc* sums;    // [ROWS][MOST_GATES][UNITS_HERE]
  float* ends;  // [2][WARPS]
  int unit;     // the block's first unit
  int first, end;  // the group's sequences
};

template <int I>
TCC_FN void tcc_stage(const Args& args, int t, const Place& p) {
  using S = Stage<I>;
  constexpr bool last = I == STAGES - 1;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int source = I == 0 ? t & 1 : S::HELD + 1 - Stage<(I > 0 ? I - 1 : 0)>::MADE;
#if QUANTIZED
  float low = 0, high = 0;
  for (int o = threadIdx.x; o < BATCH * UNITS; o += THREADS) {
    const float v = __ldcg(p.memory + (static_cast<long long>(o / UNITS) * PLACES + source) * UNITS + o % UNITS);
    low = tcc::arith_min(low, v);
    high = tcc::arith_max(high, v);
  }
  const Quanta quanta = tcc_quanta<WARPS>(low, high, p.ends);
#endif
  for (int begin = p.first; begin < p.end; begin += ROWS) {
    Sum state[ROWS][CHUNKS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const Acc* const row = p.memory + (static_cast<long long>(begin + r) * PLACES + source) * UNITS;
#pragma unroll
      for (int j = 0; j < CHUNKS; ++j) {
        const int k = j * 32 + lane;
        const Acc v = begin + r < p.end && k < UNITS ? __ldcg(row + k) : Acc(0);
#if QUANTIZED
        state[r][j] = quanta.of(v);
#else
        state[r][j] = v;
#endif
      }
    }
    for (int o = warp; o < S::GATES * UNITS_HERE; o += WARPS) {
      const int g = o / UNITS_HERE, u = o % UNITS_HERE, h = p.unit + u;
      if (h >= UNITS) continue;
      Sum total[ROWS];
#pragma unroll
      for (int r = 0; r < ROWS; ++r) total[r] = 0;
#pragma unroll
      for (int j = 0; j < CHUNKS; ++j) {
        const int k = j * 32 + lane;
        if (CHUNKS * 32 == UNITS || k < UNITS) {
          Sum w;
          if constexpr (RESIDENT) {
            w = tcc::cast<SumCodec, WeightCodec>(
                WeightCodec::load(p.slice[((S::FIRST + g) * UNITS_HERE + u) * UNITS + k]));
          } else {
            w = tcc_weight(args, S::FIRST + g, h, k);
          }
#pragma unroll
          for (int r = 0; r < ROWS; ++r) total[r] += w * state[r][j];
        }
      }
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
#pragma unroll
        for (int d = 16; d > 0; d /= 2) total[r] += __shfl_xor_sync(0xffffffffu, total[r], d);
        if (lane == 0) p.sums[(r * MOST_GATES + g) * UNITS_HERE + u] = static_cast<Acc>(total[r]);
      }
    }
    __syncthreads();
    for (int o = threadIdx.x; o < ROWS * UNITS_HERE; o += THREADS) {
      const int r = o / UNITS_HERE, u = o % UNITS_HERE, h = p.unit + u, b = begin + r;
      if (h >= UNITS || b >= p.end) continue;
      Acc* const row = p.memory + static_cast<long long>(b) * PLACES * UNITS + h;
      Acc sums[S::GATES + QUANTIZED], held[S::HELD], made[S::MADE];
#pragma unroll
      for (int g = 0; g < S::GATES; ++g) sums[g] = p.sums[(r * MOST_GATES + g) * UNITS_HERE + u];
#if QUANTIZED
      sums[S::GATES] = quanta.scale;
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
}

template <int I>
TCC_FN void tcc_stages(const Args& args, int t, const Place& p, unsigned* counter, unsigned& goal) {
  if constexpr (I < STAGES) {
    tcc_stage<I>(args, t, p);
    if (I + 1 < STAGES || t + 1 < STEPS) tcc_meet(counter, goal);
    tcc_stages<I + 1>(args, t, p, counter, goal);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  extern __shared__ __align__(128) unsigned char tcc_shared[];
  __shared__ Acc sums[ROWS * MOST_GATES * UNITS_HERE];
  __shared__ float ends[QUANTIZED ? 2 * WARPS : 1];
  Place p;
  p.memory = args.w0;
  p.slice = reinterpret_cast<WeightCodec::mem*>(tcc_shared);
  p.sums = sums;
  p.ends = ends;
  p.unit = blockIdx.x * UNITS_HERE;
  p.first = blockIdx.y * SPAN;
  p.end = p.first + SPAN < BATCH ? p.first + SPAN : BATCH;
  unsigned* const counter = reinterpret_cast<unsigned*>(args.w1) + blockIdx.y * 32;
  unsigned goal = 0;
  if constexpr (RESIDENT) {
    for (int o = threadIdx.x; o < GATES * UNITS_HERE * UNITS; o += THREADS) {
      const int k = o % UNITS, u = o / UNITS % UNITS_HERE, g = o / UNITS / UNITS_HERE;
      if (p.unit + u < UNITS) p.slice[o] = *tcc_weight_at(args, g, p.unit + u, k);
    }
  }
  for (int o = threadIdx.x; o < (p.end - p.first) * UNITS_HERE; o += THREADS) {
    const int h = p.unit + o % UNITS_HERE, b = p.first + o / UNITS_HERE;
    if (h >= UNITS) continue;
    Acc states[STATES];
    tcc_begin(args, b, h, states);
#pragma unroll
    for (int n = 0; n < STATES; ++n) {
      p.memory[(static_cast<long long>(b) * PLACES + place_of(n, 0)) * UNITS + h] = states[n];
    }
  }
  tcc_meet(counter, goal);
  for (int t = 0; t < STEPS; ++t) tcc_stages<0>(args, t, p, counter, goal);
}
