// SPDX-License-Identifier: Apache-2.0
// The end of a tensor-core product. Accumulators pass through shared memory, so that a thread has VE neighbours of a row of
// the result and a warp whole lines; extra operands are fetched meanwhile.
//
// Parts of K are added in a fixed order: those of a block's SLICES in its shared memory; where K is split among blocks, by
// the blocks of a cluster out of each other's (REDUCE_CLUSTER), each starting with its own so that they do not all ask one
// for the same part at once, or through the workspace w0 by a second kernel (REDUCE_WORKSPACE).
//
// Generated: struct Extra; tcc_extra(args, b, m, n, extra); tcc_epilogue(args, b, m, n, extra, acc[VE]).
enum { REDUCE_NONE, REDUCE_CLUSTER, REDUCE_WORKSPACE };

// A row in shared memory. Of every 8 floats the first 4 lie in its first half and the others in its second, so that
// threads with 8 neighbours each read 16 bytes next to each other; 8 or 24 floats more than a multiple of 32 keep writes
// free of conflicts.
constexpr int LINE = BN + 8, HALF = BN / 2 + 4;
TCC_FN int line_place(int column) { return (column >> 2 & 1) * HALF + (column >> 3) * 4 + (column & 3); }
constexpr int PASS_ROWS = BM / WM * PASS * 16, PASSES = WM / 16 / PASS;
constexpr int SHARE = PASS_ROWS * BN / VE / (REDUCE == REDUCE_CLUSTER ? SPLIT : 1);  // vectors of one block and pass
constexpr int PARTS = REDUCE == REDUCE_CLUSTER ? SPLIT : SLICES, ABREAST = PARTS < 4 ? PARTS : 4;
constexpr int EACH = (SHARE + THREADS - 1) / THREADS, TOGETHER = EACH < EXTRAS ? EACH : EXTRAS;

// Waits for every thread whose accumulators this one is about to read; a cluster's blocks add their slices first.
TCC_FN void staged(float* shared) {
  if constexpr (REDUCE != REDUCE_CLUSTER || SLICES > 1) __syncthreads();
  if constexpr (REDUCE == REDUCE_CLUSTER) {
    if constexpr (SLICES > 1) {
      constexpr int size = PASS_ROWS * LINE;
#pragma unroll 2
      for (int at = threadIdx.x * 4; at < size; at += THREADS * 4) {
        float4 sum = *reinterpret_cast<const float4*>(shared + at);
#pragma unroll
        for (int s = 1; s < SLICES; ++s) {
          const float4 part = *reinterpret_cast<const float4*>(shared + s * size + at);
          sum = {sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w};
        }
        *reinterpret_cast<float4*>(shared + at) = sum;
      }
    }
    tcc::cluster_barrier();
  }
}

// V floats of a row from `at` on, `at` the place of the first.
template <int V>
TCC_FN void read_line(const float* at, float (&out)[V]) {
  if constexpr (V == 8) {
    const float4 low = *reinterpret_cast<const float4*>(at), high = *reinterpret_cast<const float4*>(at + HALF);
    out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
    out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
  } else {
    tcc::read_vector<tcc::f32, V, false>(at, out);
  }
}

struct Place {
  int at, m, n;
  bool inside;
};

// The i-th vector of this thread in a pass: where it lies in shared memory, and in the result.
TCC_FN Place place_of(int i, int pass, int rank, int m0, int n0) {
  const int index = i * THREADS + static_cast<int>(threadIdx.x), vector = rank * SHARE + index;
  const int row = vector / (BN / VE), column = vector % (BN / VE) * VE;
  const int m = m0 + row / (PASS * 16) * WM + pass * PASS * 16 + row % (PASS * 16), n = n0 + column;
  return {row * LINE + line_place(column), m, n, (SHARE % THREADS == 0 || index < SHARE) && m < M && n < N};
}

TCC_FN void finish(const Args& args, int split, int batch, int m0, int n0, int slice, int warp_m, int warp_n,
                   const float (&acc)[WM / 16][WN / 8][4]) {
  float* const shared = reinterpret_cast<float*>(tcc::tcc_shared);
  const int lane = threadIdx.x & 31;
  const int rank = REDUCE == REDUCE_CLUSTER ? split : 0;
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
#pragma unroll
    for (int start = 0; start < EACH; start += TOGETHER) {
      Extra extra[TOGETHER];
      if constexpr (REDUCE != REDUCE_WORKSPACE) {
#pragma unroll
        for (int u = 0; u < TOGETHER; ++u) {
          const Place p = place_of(start + u, pass, rank, m0, n0);
          if (start + u < EACH && p.inside) tcc_extra(args, batch, p.m, p.n, extra[u]);
        }
      }
      if (start == 0) {
        __syncthreads();  // the ring, or the pass before, has been read
#pragma unroll
        for (int i = 0; i < PASS; ++i)
#pragma unroll
          for (int j = 0; j < WN / 8; ++j) {
            const int row = slice * PASS_ROWS + warp_m / WM * (PASS * 16) + i * 16 + (lane >> 2);
            const int column = warp_n + j * 8 + (lane & 3) * 2;
            const float(&v)[4] = acc[pass * PASS + i][j];
            float* const to = shared + row * LINE + line_place(column);
            *reinterpret_cast<float2*>(to) = {v[0], v[1]};
            *reinterpret_cast<float2*>(to + 8 * LINE) = {v[2], v[3]};
          }
        staged(shared);
      }
#pragma unroll
      for (int u = 0; u < TOGETHER; ++u) {
        const Place p = place_of(start + u, pass, rank, m0, n0);
        if (start + u >= EACH || !p.inside) continue;
        float sum[VE];
#pragma unroll
        for (int s = 0; s < PARTS; s += ABREAST) {
          float part[ABREAST][VE];
#pragma unroll
          for (int t = 0; t < ABREAST; ++t) {
            if constexpr (REDUCE == REDUCE_CLUSTER)
              tcc::load_cluster<HALF * 4>(part[t], tcc::shared_address() + p.at * 4, (split + s + t) % SPLIT);
            else
              read_line(shared + (s + t) * PASS_ROWS * LINE + p.at, part[t]);
          }
#pragma unroll
          for (int t = 0; t < ABREAST; ++t)
#pragma unroll
            for (int j = 0; j < VE; ++j) sum[j] = s + t == 0 ? part[t][j] : sum[j] + part[t][j];
        }
#if TCC_WORKSPACE
        const long long at = ((static_cast<long long>(split) * BATCH + batch) * M + p.m) * N + p.n;
        tcc::write_vector<tcc::f32, VE>(args.w0 + at, sum);
#else
        tcc_epilogue(args, batch, p.m, p.n, extra[u], sum);
#endif
      }
    }
  }
  if constexpr (REDUCE == REDUCE_CLUSTER) {  // others may still read this block's memory
    tcc::cluster_arrive();
    tcc::cluster_wait();
  }
}

#if TCC_WORKSPACE
extern "C" __global__ void __launch_bounds__(256) TCC_ENTRY_FINISH(TCC_PARAMS) {
  TCC_ARGS;
  TCC_PDL_WAIT();
  TCC_PDL_LAUNCH();
  constexpr long long plane = static_cast<long long>(BATCH) * M * N;
  const long long at = (static_cast<long long>(blockIdx.x) * 256 + threadIdx.x) * VE;
  if (at >= plane) return;
  const int n = static_cast<int>(at % N), m = static_cast<int>(at / N % M), batch = static_cast<int>(at / N / M);
  Extra extra;
  tcc_extra(args, batch, m, n, extra);
  float part[SPLIT][VE];
#pragma unroll
  for (int s = 0; s < SPLIT; ++s) tcc::read_vector<tcc::f32, VE, false>(args.w0 + s * plane + at, part[s]);
#pragma unroll
  for (int s = 1; s < SPLIT; ++s)
#pragma unroll
    for (int j = 0; j < VE; ++j) part[0][j] += part[s][j];
  tcc_epilogue(args, batch, m, n, extra, part[0]);
}
#endif
