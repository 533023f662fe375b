// SPDX-License-Identifier: Apache-2.0
// Rows: several reductions over a row, then a map of it. LANES threads share a row, each with CHUNKS vectors of V elements;
// ROWS rows a block. With CACHED the operands' elements stay in registers between the stages (`Row`), else every stage
// reads them again. LANE_FASTEST: neighbouring threads share a row, else they have neighbouring rows.
//
// Generated: struct Row; tcc_load(args, point, r, row, chunk); tcc_stages(args, point, lane, slot, row), which calls
// `reduce_lanes` with a combiner after each stage; tcc_last(args, point, r, row, chunk, stages...).
using Value = Acc::reg;
constexpr int THREADS = LANES * ROWS;

// `value` combined over the LANES threads of a row, in every one of them.
template <class Combine>
TCC_FN Value reduce_lanes(Value value, int lane, int slot, const Combine& combine) {
  if constexpr (LANE_FASTEST) {
    constexpr int within = LANES < 32 ? LANES : 32;
#pragma unroll
    for (int d = within / 2; d > 0; d /= 2) value = combine(value, __shfl_xor_sync(0xffffffffu, value, d));
    if constexpr (LANES > 32) {
      __shared__ Value parts[ROWS][LANES / 32 + (LANES <= 32)];
      __syncthreads();
      if (lane % 32 == 0) parts[slot][lane / 32] = value;
      __syncthreads();
      value = parts[slot][0];
#pragma unroll
      for (int w = 1; w < LANES / 32; ++w) value = combine(value, parts[slot][w]);
    }
  } else if constexpr (LANES > 1) {
    __shared__ Value parts[LANES][ROWS];
    __syncthreads();
    parts[lane][slot] = value;
    __syncthreads();
    value = parts[0][slot];
#pragma unroll
    for (int w = 1; w < LANES; ++w) value = combine(value, parts[w][slot]);
  }
  return value;
}

// Calls f(r, chunk) for every vector of the row that is this thread's.
template <class F>
TCC_FN void each_chunk(int lane, const F& f) {
  if constexpr (CACHED) {
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
      const int r = (chunk * LANES + lane) * V;
      if (CHUNKS * LANES * V == WIDTH || r < WIDTH) f(r, chunk);
    }
  } else {
#pragma unroll 2
    for (int r = lane * V; r < WIDTH; r += LANES * V) f(r, 0);
  }
}

//@generated

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  const int lane = LANE_FASTEST ? threadIdx.x % LANES : threadIdx.x / ROWS;
  const int slot = LANE_FASTEST ? threadIdx.x / LANES : threadIdx.x % ROWS;
  const Coordinate own = static_cast<Coordinate>(blockIdx.x) * ROWS + slot;
  // Threads without a row compute the last one again, so that all meet at the barriers, and write nothing.
  const Coordinate point = own < POINTS ? own : POINTS - 1;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  Row row;
  tcc_load_row(args, point, row);
  if (CACHED) each_chunk(lane, [&](int r, int chunk) { tcc_load(args, point, r, row, chunk); });
  tcc_stages(args, point, lane, slot, row, own < POINTS);
}
