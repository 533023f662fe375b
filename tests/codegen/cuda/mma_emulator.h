// SPDX-License-Identifier: Apache-2.0
// Stands in for mma_ptx.cuh on the CPU. Asynchronous copies happen when they are waited for, not before; clusters are not
// emulated.
#include <deque>
#include <vector>
namespace tcc {
struct PendingCopy { unsigned to; const void* from; int bytes; bool valid; };
static std::vector<PendingCopy> open_copies[1024];
static std::deque<std::vector<PendingCopy>> copy_groups[1024];
static unsigned matrix_rows[1024];
struct MmaOperands { unsigned a[4], b[2]; };
static MmaOperands mma_operands[1024];

inline unsigned char* at(unsigned address, int bytes) {
  if (address % bytes || address + bytes > sizeof tcc_shared) abort();
  return ::tcc_shared + address;
}
#define tcc_shared ::tcc_shared
inline unsigned shared_address() { return 0; }

template <int Bytes>
void copy_async(unsigned to, const void* from, bool valid) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "");
  if (valid && reinterpret_cast<uintptr_t>(from) % Bytes) abort();
  memset(at(to, Bytes), 0xff, Bytes);
  open_copies[emulator::current].push_back({to, from, Bytes, valid});
}
inline void copy_commit() {
  copy_groups[emulator::current].push_back(open_copies[emulator::current]);
  open_copies[emulator::current].clear();
}
template <int Pending>
void copy_wait() {
  auto& groups = copy_groups[emulator::current];
  for (; groups.size() > Pending; groups.pop_front())
    for (const PendingCopy& c : groups.front()) {
      if (c.valid) memcpy(at(c.to, c.bytes), c.from, c.bytes);
      else memset(at(c.to, c.bytes), 0, c.bytes);
    }
}
template <int Bytes>
void prefetch_l2(const void* from) {
  volatile unsigned char touched = 0;
  for (int i = 0; i < Bytes; ++i) touched += static_cast<const unsigned char*>(from)[i];
  if (reinterpret_cast<uintptr_t>(from) % 16) abort();
}
template <int Bytes>
void store_shared(unsigned to, const void* v) { memcpy(at(to, Bytes), v, Bytes); }
inline unsigned load_shared(unsigned from) {
  unsigned v;
  memcpy(&v, at(from, 4), 4);
  return v;
}

template <bool Transposed, int Count>
void load_matrices(unsigned* r, unsigned from) {
  matrix_rows[emulator::current] = from;
  emulator::yield(emulator::AT_WARP);
  const int warp = emulator::current & ~31, lane = emulator::current & 31;
  for (int i = 0; i < Count; ++i) {
    unsigned short got[2];
    for (int e = 0; e < 2; ++e) {
      const int y = Transposed ? 2 * (lane % 4) + e : lane / 4, x = Transposed ? lane / 4 : 2 * (lane % 4) + e;
      memcpy(&got[e], at(matrix_rows[warp + 8 * i + y], 16) + 2 * x, 2);
    }
    memcpy(r + i, got, 4);
  }
  emulator::yield(emulator::AT_WARP);
}
template <bool Transposed>
void load_matrix_x4(unsigned (&r)[4], unsigned from) { load_matrices<Transposed, 4>(r, from); }
template <bool Transposed>
void load_matrix_x2(unsigned (&r)[2], unsigned from) { load_matrices<Transposed, 2>(r, from); }

enum { MMA_F16, MMA_BF16, MMA_TF32 };
template <int Kind>
float mma_element(unsigned word, int half) {
  const unsigned short bits = word >> (16 * half);
  if (Kind == MMA_TF32) return __int_as_float(word & 0xffffe000);
  if (Kind == MMA_BF16) return __int_as_float(static_cast<unsigned>(bits) << 16);
  _Float16 v;
  memcpy(&v, &bits, 2);
  return static_cast<float>(v);
}
template <int Kind>
void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_operands[emulator::current] = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  emulator::yield(emulator::AT_WARP);
  const MmaOperands* of = mma_operands + (emulator::current & ~31);
  const int lane = emulator::current & 31, per = Kind == MMA_TF32 ? 1 : 2;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = 2 * (lane % 4) + i % 2;
    for (int k = 0; k < 8 * per; ++k) {
      const int high = k / (4 * per), quad = k / per % 4;
      d[i] += mma_element<Kind>(of[row % 8 * 4 + quad].a[row / 8 + high * 2], k % per) *
              mma_element<Kind>(of[column * 4 + quad].b[high], k % per);
    }
  }
  emulator::yield(emulator::AT_WARP);
}
inline unsigned to_tf32(unsigned v) { return (v & 0x7f800000) == 0x7f800000 ? v : (v + 0x1000) & 0xffffe000; }

inline void cluster_barrier() { abort(); }
inline void cluster_arrive() { abort(); }
inline void cluster_wait() { abort(); }
template <int Far, int Count>
void load_cluster(float (&)[Count], unsigned, int) { abort(); }
}  // namespace tcc
#undef tcc_shared
namespace tcc { using ::tcc_shared; }
