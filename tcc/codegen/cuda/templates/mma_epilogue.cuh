// SPDX-License-Identifier: Apache-2.0
// The end of a tensor-core product. Accumulators pass through shared memory, so that a thread has VE neighbours of a row of
// the result and a warp whole lines; extra operands are fetched meanwhile.
//
// Parts of K are added in order: those of a block's SLICES out of its shared memory; where K is split among blocks, by the
// blocks of a cluster out of each other's (REDUCE_CLUSTER), or through the workspace w0 by a second kernel
// (REDUCE_WORKSPACE).
//
// Generated: struct Extra; tcc_extra(args, b, m, n, extra); tcc_epilogue(args, b, m, n, extra, acc[VE]).
enum { REDUCE_NONE, REDUCE_CLUSTER, REDUCE_WORKSPACE };

constexpr int LINE = BN + 8;  // floats from one row to the next: 8 or 24 modulo 32 keeps writes free of conflicts
constexpr int PASS_ROWS = BM / WM * PASS * 16, PASSES = WM / 16 / PASS;
constexpr int SHARE = PASS_ROWS * BN / VE / (REDUCE == REDUCE_CLUSTER ? SPLIT : 1);  // vectors of one block and pass
constexpr int PARTS = SLICES * (REDUCE == REDUCE_CLUSTER ? SPLIT : 1), ABREAST = PARTS < 4 ? PARTS : 4;
constexpr int EACH = (SHARE + THREADS - 1) / THREADS, TOGETHER = EACH < EXTRAS ? EACH : EXTRAS;

// Waits for every thread whose accumulators this one is about to read.
TCC_FN void staged() {
  if constexpr (REDUCE == REDUCE_CLUSTER) tcc::cluster_barrier();
  else __syncthreads();
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
  return {row * LINE + column, m, n, (SHARE % THREADS == 0 || index < SHARE) && m < M && n < N};
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
            *reinterpret_cast<float2*>(shared + row * LINE + column) = {v[0], v[1]};
            *reinterpret_cast<float2*>(shared + (row + 8) * LINE + column) = {v[2], v[3]};
          }
        staged();
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
            const int at = (s + t) % SLICES * PASS_ROWS * LINE + p.at;
            if constexpr (REDUCE == REDUCE_CLUSTER)
              tcc::load_cluster(part[t], tcc::shared_address() + at * 4, (s + t) / SLICES);
            else
              tcc::read_vector<tcc::f32, VE, false>(shared + at, part[t]);
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
