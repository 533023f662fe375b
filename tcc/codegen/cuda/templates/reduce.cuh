// SPDX-License-Identifier: Apache-2.0
// Reductions. A block has TX threads along the kept points and TY along the reduced ones; a thread takes VP points (or reads
// VR reduced ones at a time). Y_FASTEST: neighbouring threads are neighbours along the reduced dims. The reduced range is
// split over SPLIT blocks. Their parts are combined in order, by the first block of a cluster (TCC_CLUSTER) or by a
// second kernel.
//
// Generated: NC combiners; tcc_identity(acc), tcc_combine(acc, v) on Value[NC]; tcc_read(args, point, r, out[NC][VP or VR]);
// tcc_epilogue(args, point, acc[NC][VP]).
using Value = Acc::reg;
constexpr int THREADS = TX * TY;
constexpr int STEP = TY * VR;
constexpr int UNROLL = VP * VR >= 8 ? 2 : 4;

struct State {
  Value v[VP][NC];
  TCC_FN State() {
#pragma unroll
    for (int p = 0; p < VP; ++p) tcc_identity(v[p]);
  }
  TCC_FN void add(const State& other) {
#pragma unroll
    for (int p = 0; p < VP; ++p) tcc_combine(v[p], other.v[p]);
  }
  TCC_FN void accumulate(const Args& args, Coordinate point, int r) {
    Value read[NC][VP > VR ? VP : VR];
    tcc_read(args, point, r, read);
#pragma unroll
    for (int j = 0; j < (VP > VR ? VP : VR); ++j) {
      Value one[NC];
#pragma unroll
      for (int c = 0; c < NC; ++c) one[c] = read[c][j];
      tcc_combine(v[VP > 1 ? j : 0], one);
    }
  }
  TCC_FN void finish(const Args& args, Coordinate point) const {
    Value acc[NC][VP];
#pragma unroll
    for (int p = 0; p < VP; ++p)
#pragma unroll
      for (int c = 0; c < NC; ++c) acc[c][p] = v[p][c];
    tcc_epilogue(args, point, acc);
  }
};

// The states of the TY threads of a point, combined; the result is right in the threads with y 0.
TCC_FN void combine_block(State& state, int x, int y) {
  if constexpr (Y_FASTEST) {
    constexpr int within = TY < 32 ? TY : 32;
#pragma unroll
    for (int d = within / 2; d > 0; d /= 2) {
      State other;
#pragma unroll
      for (int p = 0; p < VP; ++p)
#pragma unroll
        for (int c = 0; c < NC; ++c) other.v[p][c] = __shfl_xor_sync(0xffffffffu, state.v[p][c], d);
      state.add(other);
    }
    if constexpr (TY > 32) {
      __shared__ Value parts[TX][TY / 32 + (TY <= 32)][VP][NC];
      if (y % 32 == 0)
#pragma unroll
        for (int p = 0; p < VP; ++p)
#pragma unroll
          for (int c = 0; c < NC; ++c) parts[x][y / 32][p][c] = state.v[p][c];
      __syncthreads();
      if (y == 0)
        for (int w = 1; w < TY / 32; ++w)
#pragma unroll
          for (int p = 0; p < VP; ++p) tcc_combine(state.v[p], parts[x][w][p]);
    }
  } else if constexpr (TY > 1) {
    __shared__ Value parts[VP][NC][TY][TX];
#pragma unroll
    for (int p = 0; p < VP; ++p)
#pragma unroll
      for (int c = 0; c < NC; ++c) parts[p][c][y][x] = state.v[p][c];
    __syncthreads();
#pragma unroll
    for (int d = TY / 2; d > 0; d /= 2) {
      if (y < d)
#pragma unroll
        for (int p = 0; p < VP; ++p) {
          Value other[NC];
#pragma unroll
          for (int c = 0; c < NC; ++c) other[c] = parts[p][c][y + d][x];
          tcc_combine(state.v[p], other);
#pragma unroll
          for (int c = 0; c < NC; ++c) parts[p][c][y][x] = state.v[p][c];
        }
      __syncthreads();
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  const int x = Y_FASTEST ? threadIdx.x / TY : threadIdx.x % TX, y = Y_FASTEST ? threadIdx.x % TY : threadIdx.x / TX;
  const int split = blockIdx.x % SPLIT;
  const Coordinate point = (static_cast<Coordinate>(blockIdx.x / SPLIT) * TX + x) * VP;
  // Parts are whole steps, so that vectors stay aligned.
  constexpr int steps = (REDUCED + STEP - 1) / STEP;
  const int first = static_cast<int>(static_cast<long long>(split) * steps / SPLIT) * STEP;
  int last = static_cast<int>(static_cast<long long>(split + 1) * steps / SPLIT) * STEP;
  if (last > REDUCED) last = REDUCED;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  State state;
  if (point < POINTS) {
#pragma unroll UNROLL
    for (int r = first + y * VR; r < last; r += STEP) state.accumulate(args, point, r);
  }
  combine_block(state, x, y);
#if TCC_CLUSTER
  __shared__ Value cluster_parts[VP][NC][TX];
  if (y == 0)
#pragma unroll
    for (int p = 0; p < VP; ++p)
#pragma unroll
      for (int c = 0; c < NC; ++c) cluster_parts[p][c][x] = state.v[p][c];
  tcc::cluster_sync();
  if (split == 0 && y == 0 && point < POINTS) {
#pragma unroll
    for (int s = 1; s < SPLIT; ++s) {
      State part;
#pragma unroll
      for (int p = 0; p < VP; ++p)
#pragma unroll
        for (int c = 0; c < NC; ++c) part.v[p][c] = tcc::read_cluster(&cluster_parts[p][c][x], s);
      state.add(part);
    }
    state.finish(args, point);
  }
  tcc::cluster_sync();  // a block's shared memory stays while others read it
#else
  if (y == 0 && point < POINTS) {
#if TCC_SPLIT > 1
#pragma unroll
    for (int c = 0; c < NC; ++c) {
      Value part[VP];
#pragma unroll
      for (int p = 0; p < VP; ++p) part[p] = state.v[p][c];
      tcc::write_vector<Acc, VP>(args.w0 + (static_cast<long long>(c) * SPLIT + split) * POINTS + point, part);
    }
#else
    state.finish(args, point);
#endif
  }
#endif
}

#if TCC_SPLIT > 1 && !TCC_CLUSTER
extern "C" __global__ void __launch_bounds__(128) TCC_ENTRY_FINISH(TCC_PARAMS) {
  TCC_ARGS;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  const Coordinate point = (static_cast<Coordinate>(blockIdx.x) * 128 + threadIdx.x) * VP;
  if (point >= POINTS) return;
  State state;
#pragma unroll 4
  for (int s = 0; s < SPLIT; ++s) {
    State part;
#pragma unroll
    for (int c = 0; c < NC; ++c) {
      Value read[VP];
      tcc::read_vector<Acc, VP, false>(args.w0 + (static_cast<long long>(c) * SPLIT + s) * POINTS + point, read);
#pragma unroll
      for (int p = 0; p < VP; ++p) part.v[p][c] = read[p];
    }
    state.add(part);
  }
  state.finish(args, point);
}
#endif
