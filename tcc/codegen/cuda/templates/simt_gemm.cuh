// SPDX-License-Identifier: Apache-2.0
// Batched GEMM with FMA. A block computes BM x BN of one batch entry over one of SPLIT ranges of K; a thread TM x TN of
// it, as groups of up to four rows and columns, so that neighbours read neighbouring shared memory. Tiles of BK are
// double buffered: the next one is on its way to registers while this one is multiplied.
//
// Generated: tcc_read_a(args, b, m, k, out[VA]), tcc_read_b(args, b, n, k, out[VB]), tcc_epilogue(args, b, m, n, acc[VE]).
using Value = Acc::reg;

constexpr int THREADS = (BM / TM) * (BN / TN);
constexpr int QM = TM < 4 ? TM : 4, GM = TM / QM, QN = TN < 4 ? TN : 4, GN = TN / QN;
constexpr int PAD = 16 / sizeof(Value);
constexpr int TILES_N = (N + BN - 1) / BN, TILES_K = (K + BK - 1) / BK;

template <int Count>
struct alignas(sizeof(Value) * Count) Quad { Value v[Count]; };

// One operand's tile: Rows x BK elements, read in vectors of V along k or along the rows.
template <int Rows, int V, bool AlongK>
struct Tile {
  static constexpr int vectors = Rows * BK / V, each = (vectors + THREADS - 1) / THREADS;
  Value staged[each][V];

  static TCC_FN void place(int i, int& row, int& k) {
    const int index = i * THREADS + threadIdx.x;
    if constexpr (AlongK) {
      row = index / (BK / V);
      k = index % (BK / V) * V;
    } else {
      row = index % (Rows / V) * V;
      k = index / (Rows / V);
    }
  }
  static TCC_FN bool mine(int i) { return vectors % THREADS == 0 || i * THREADS + threadIdx.x < vectors; }

  template <class Read>
  TCC_FN void fetch(int row0, int rows, int k0, const Read& read) {
#pragma unroll
    for (int i = 0; i < each; ++i) {
      int row, k;
      place(i, row, k);
      if (mine(i) && row0 + row < rows && k0 + k < K) {
        read(row0 + row, k0 + k, staged[i]);
      } else {
#pragma unroll
        for (int j = 0; j < V; ++j) staged[i][j] = 0;
      }
    }
  }
  TCC_FN void put(Value (*to)[Rows + PAD]) const {
#pragma unroll
    for (int i = 0; i < each; ++i) {
      int row, k;
      place(i, row, k);
      if (!mine(i)) continue;
#pragma unroll
      for (int j = 0; j < V; ++j) to[AlongK ? k + j : k][AlongK ? row : row + j] = staged[i][j];
    }
  }
};

TCC_FN void multiply_add(Value& acc, Value a, Value b) {
  if constexpr (Acc::kind == tcc::FLOAT) acc += a * b;
  else acc = tcc::iadd<Acc>(acc, tcc::imul<Acc>(a, b));
}

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  __shared__ __align__(16) Value a_tile[2][BK][BM + PAD];
  __shared__ __align__(16) Value b_tile[2][BK][BN + PAD];
  int place = blockIdx.x;
  const int n0 = place % TILES_N * BN;
  place /= TILES_N;
  const int tiles_m = (M + BM - 1) / BM;  // M may be an argument
  const int m0 = place % tiles_m * BM;
  place /= tiles_m;
  const int split = place % SPLIT, batch = place / SPLIT;
  const int first = split * TILES_K / SPLIT, last = (split + 1) * TILES_K / SPLIT;
  const int tx = threadIdx.x % (BN / TN), ty = threadIdx.x / (BN / TN);
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();

  Tile<BM, VA, A_ALONG_K> a;
  Tile<BN, VB, B_ALONG_K> b;
  const auto read_a = [&](int row, int k, Value(&out)[VA]) { tcc_read_a(args, batch, row, k, out); };
  const auto read_b = [&](int row, int k, Value(&out)[VB]) { tcc_read_b(args, batch, row, k, out); };
  Value acc[TM][TN];
#pragma unroll
  for (int i = 0; i < TM; ++i)
#pragma unroll
    for (int j = 0; j < TN; ++j) acc[i][j] = 0;

  if (first < last) {
    a.fetch(m0, M, first * BK, read_a);
    b.fetch(n0, N, first * BK, read_b);
    a.put(a_tile[0]);
    b.put(b_tile[0]);
  }
  __syncthreads();
  for (int tile = first; tile < last; ++tile) {
    const int now = (tile - first) & 1;
    if (tile + 1 < last) {
      a.fetch(m0, M, (tile + 1) * BK, read_a);
      b.fetch(n0, N, (tile + 1) * BK, read_b);
    }
#pragma unroll
    for (int k = 0; k < BK; ++k) {
      Quad<QM> x[GM];
      Quad<QN> y[GN];
#pragma unroll
      for (int g = 0; g < GM; ++g)
        x[g] = *reinterpret_cast<const Quad<QM>*>(&a_tile[now][k][g * (BM / GM) + ty * QM]);
#pragma unroll
      for (int g = 0; g < GN; ++g)
        y[g] = *reinterpret_cast<const Quad<QN>*>(&b_tile[now][k][g * (BN / GN) + tx * QN]);
#pragma unroll
      for (int i = 0; i < TM; ++i)
#pragma unroll
        for (int j = 0; j < TN; ++j) multiply_add(acc[i][j], x[i / QM].v[i % QM], y[j / QN].v[j % QN]);
    }
    if (tile + 1 < last) {
      a.put(a_tile[now ^ 1]);
      b.put(b_tile[now ^ 1]);
    }
    __syncthreads();
  }

#pragma unroll
  for (int i = 0; i < TM; ++i) {
    const int m = m0 + i / QM * (BM / GM) + ty * QM + i % QM;
#pragma unroll
    for (int j = 0; j < TN; j += VE) {
      const int n = n0 + j / QN * (BN / GN) + tx * QN + j % QN;
      if (m < M && n < N) tcc_finish_or_keep(args, split, batch, m, n, reinterpret_cast<const Value(&)[VE]>(acc[i][j]));
    }
  }
}
