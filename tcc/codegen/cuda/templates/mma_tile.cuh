// SPDX-License-Identifier: Apache-2.0
// One operand's tile of a tensor-core product in shared memory: how it gets there, and how fragments are read from it.
//
// A tile is rows of 16-byte chunks. A row is BK elements of one row of the operand (`along_k`), or the whole tile's rows
// at one k. Chunk c of row r lies at place c ^ swizzle(r), so that the eight rows of a matrix that ldmatrix reads at once
// lie in different banks.
//
// Generated for each operand: a struct `Side` with the element type, `V` (elements per copy), `mode`, `extent` and `depth`
// (its size along its own dim and k), and either the place of an element as a sum of a part of its own coordinate (`Own`;
// `linear`: that is `stride` times it) and one of k (`Deep`), with guards that are sums alike, or `read`, which gives
// elements by value.
enum { COPY_ASYNC, COPY_RAW, COPY_READ };  // cp.async; through registers as they are; through registers, computed

template <int Chunks>
TCC_FN constexpr int swizzle(int row) {
  return Chunks % 8 == 0 ? row & 7 : Chunks % 4 == 0 ? (row >> 1) & 3 : Chunks % 2 == 0 ? (row >> 2) & 1 : 0;
}

template <class Side, int Rows>
struct Tile {
  using Element = typename Side::Element;
  using Mem = typename Element::mem;
  static constexpr int V = Side::V, size = sizeof(Mem), mode = Side::mode;
  static constexpr int pitch = Side::along_k ? BK : Rows, chunks = pitch * size / 16, bytes = Rows * BK * size;
  static constexpr int across = pitch / V, copies = Rows * BK / V, each = (copies + THREADS - 1) / THREADS;
  // A thread's copies have one place in their rows, so one k (or one coordinate of its own) serves them all.
  static constexpr bool column = THREADS % across == 0;
  // Rows at one distance from each other need no address of their own.
  static constexpr bool even = Side::linear && Side::along_k && column;
  static constexpr int owns = Side::along_k && !even || !column ? each : 1, deeps = Side::along_k && column ? 1 : each;
  static constexpr bool keep = mode != COPY_READ && owns <= 8;

  using Raw = typename tcc::Raw<V * size>::type;
  typename Side::Own own[keep ? owns : 1];
  Raw staged[mode == COPY_ASYNC ? 1 : each];
  int origin, batch;

  static TCC_FN bool mine(int i) { return copies % THREADS == 0 || i * THREADS + static_cast<int>(threadIdx.x) < copies; }
  static TCC_FN int row_of(int i) { return (i * THREADS + static_cast<int>(threadIdx.x)) / across; }
  static TCC_FN int column_of(int i) { return (i * THREADS + static_cast<int>(threadIdx.x)) % across * V; }
  TCC_FN int own_of(int i) const { return origin + (Side::along_k ? row_of(i) : column_of(i)); }
  static TCC_FN int deep_of(int i) { return Side::along_k ? column_of(i) : row_of(i); }
  static TCC_FN unsigned place(int i) {
    const int row = row_of(i), at = column_of(i) * size;
    return (row * chunks + ((at >> 4) ^ swizzle<chunks>(row))) * 16 + (at & 15);
  }
  // Rows past the end give zeros.
  TCC_FN bool reaches(int i) const { return Side::extent % Rows == 0 || own_of(i) < Side::extent; }

  TCC_FN void start(int batch_, int origin_) {
    batch = batch_;
    origin = origin_;
    if constexpr (keep) {
#pragma unroll
      for (int i = 0; i < owns; ++i) Side::own(batch, own_of(i), own[i]);
    }
  }

  // The tile that starts at k0: to shared memory, or to registers (`put` then writes it).
  TCC_FN void fetch(const Args& args, int k0, unsigned to) {
    if constexpr (mode == COPY_READ) {
#pragma unroll
      for (int i = 0; i < each; ++i) {
        tcc::Pack<Element, V> pack;
        const int at = own_of(i), k = k0 + deep_of(i);
        float values[V];
#pragma unroll
        for (int j = 0; j < V; ++j) values[j] = 0;
        if (mine(i) && at < Side::extent && k < Side::depth) Side::read(args, batch, at, k, values);
#pragma unroll
        for (int j = 0; j < V; ++j) pack.v[j] = Element::store(values[j]);
        staged[i] = reinterpret_cast<const Raw&>(pack);
      }
    } else {
      typename Side::Deep deep;
      bool reached = true;
#pragma unroll
      for (int i = 0; i < each; ++i) {
        if (i < deeps) {
          const int k = k0 + deep_of(i);
          Side::deep(k, deep);
          reached = Side::depth % BK == 0 || k < Side::depth;
        }
        typename Side::Own o;
        if constexpr (keep) o = own[owns == 1 ? 0 : i];
        else Side::own(batch, own_of(owns == 1 ? 0 : i), o);
        const bool valid = reached && reaches(i) && Side::valid(o, deep);
        const Mem* from = Side::base(args) + (o.at + deep.at);
        if constexpr (even) from += static_cast<long long>(Side::stride) * i * (THREADS / across);
        if constexpr (mode == COPY_ASYNC) {
          if (mine(i)) tcc::copy_async<V * size>(to + place(i), from, valid);
        } else {
          staged[i] = valid && mine(i) ? tcc::load_raw<Side::constant>(reinterpret_cast<const Raw*>(from)) : Raw{};
        }
      }
    }
  }
  // Brings this operand's elements of k in [k0, k1) into the L2 cache, shared among `parts` blocks.
  static TCC_FN void prefetch(const Args& args, int batch, int origin, int k0, int k1, int part, int parts) {
    constexpr int line = 64 / size;  // elements asked for at once
    const int across = Side::along_k ? (k1 - k0 + line - 1) / line : (Rows + line - 1) / line;
    const int count = across * (Side::along_k ? Rows : k1 - k0);
    for (int i = part * THREADS + static_cast<int>(threadIdx.x); i < count; i += parts * THREADS) {
      const int at = i % across * line;
      const int own = origin + (Side::along_k ? i / across : at), k = k0 + (Side::along_k ? at : i / across);
      if (own + (Side::along_k ? 1 : line) > Side::extent || k + (Side::along_k ? line : 1) > Side::depth) continue;
      typename Side::Own o;
      typename Side::Deep deep;
      Side::own(batch, own, o);
      Side::deep(k, deep);
      tcc::prefetch_l2<64>(Side::base(args) + (o.at + deep.at));
    }
  }
  TCC_FN void put(unsigned to) const {
    if constexpr (mode != COPY_ASYNC) {
#pragma unroll
      for (int i = 0; i < each; ++i)
        if (mine(i)) tcc::store_shared<V * size>(to + place(i), &staged[i]);
    }
  }
};

// What a warp reads of a tile: `Count` slices of 16 rows (A) or 8 (B), in steps of 32 bytes of k.
template <class Side, int Rows, int Count, bool IsA>
struct Reader {
  using T = Tile<Side, Rows>;
  static constexpr int chunks = T::chunks, size = T::size, words = IsA ? 4 : 2;
  static constexpr bool matrices = Side::along_k || size == 2;  // ldmatrix transposes 16-bit elements only
  int origin, chunk, turn;
  unsigned base;

  TCC_FN void start(int origin_) {
    const int lane = threadIdx.x & 31, inner = lane & 7, middle = (lane >> 3) & 1, outer = lane >> 4;
    const int k = IsA ? outer : middle, own = IsA ? middle : outer;  // which of the two eights along each dim
    origin = origin_;
    const int row = Side::along_k ? origin + own * 8 + inner : k * 8 + inner;
    chunk = Side::along_k ? k : origin * size / 16 + own;
    base = row * chunks * 16;
    turn = swizzle<chunks>(row);
  }
  // Matrices 4 * group .. of step `step` (A: slice `group`; B: slices 2 * group and 2 * group + 1).
  TCC_FN unsigned address(unsigned tile, int group, int step) const {
    if constexpr (Side::along_k)
      return tile + base + group * 16 * chunks * 16 + (((step * 2 + chunk) ^ turn) << 4);
    else
      return tile + base + step * (32 / size) * chunks * 16 + (((chunk + group * size) ^ turn) << 4);
  }
  // The 32-bit element at (row, k) of a tile whose rows lie along its own dim.
  static TCC_FN unsigned element(unsigned tile, int row, int k) {
    return tcc::load_shared(tile + (k * chunks + ((row >> 2) ^ swizzle<chunks>(k))) * 16 + (row & 3) * 4);
  }

  TCC_FN void load(unsigned (&f)[Count][words], unsigned tile, int step) const {
    if constexpr (!matrices) {
      const int lane = threadIdx.x & 31;
#pragma unroll
      for (int i = 0; i < Count; ++i)
#pragma unroll
        for (int w = 0; w < words; ++w) {
          const int row = IsA ? i * 16 + (w & 1) * 8 : i * 8, k = step * 8 + (IsA ? w >> 1 : w) * 4;
          f[i][w] = element(tile, origin + row + (lane >> 2), k + (lane & 3));
        }
    } else if constexpr (IsA) {
#pragma unroll
      for (int i = 0; i < Count; ++i) tcc::load_matrix_x4<!Side::along_k>(f[i], address(tile, i, step));
    } else {
#pragma unroll
      for (int i = 0; i + 1 < Count; i += 2) {
        unsigned four[4];
        tcc::load_matrix_x4<!Side::along_k>(four, address(tile, i / 2, step));
        f[i][0] = four[0];
        f[i][1] = four[1];
        f[i + 1][0] = four[2];
        f[i + 1][1] = four[3];
      }
      if constexpr (Count % 2 == 1) tcc::load_matrix_x2<!Side::along_k>(f[Count - 1], address(tile, Count / 2, step));
    }
    if constexpr (KIND == tcc::MMA_TF32) {
#pragma unroll
      for (int i = 0; i < Count; ++i)
#pragma unroll
        for (int w = 0; w < words; ++w) f[i][w] = tcc::to_tf32(f[i][w]);
    }
  }
};
