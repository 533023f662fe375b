// SPDX-License-Identifier: Apache-2.0
// The instructions the tensor-core templates are made of: asynchronous copies, ldmatrix, mma.sync, clusters. Addresses
// of shared memory are 32-bit numbers. An instruction an architecture lacks is never reached in a kernel for it.
namespace tcc {

extern __shared__ __align__(128) unsigned char tcc_shared[];

TCC_FN unsigned shared_address() { return static_cast<unsigned>(__cvta_generic_to_shared(tcc_shared)); }

// Copies Bytes (4, 8 or 16) from global to shared memory, or writes zeros.
template <int Bytes>
TCC_FN void copy_async(unsigned to, const void* from, bool valid) {
  const int count = valid ? Bytes : 0;
  if constexpr (Bytes == 16)
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(count) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(Bytes), "r"(count)
                 : "memory");
}
TCC_FN void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Pending>
TCC_FN void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory"); }

// Asks for Bytes (a multiple of 16) to be brought into the L2 cache.
template <int Bytes>
TCC_FN void prefetch_l2(const void* from) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "n"(Bytes) : "memory");
#else
  asm volatile("prefetch.global.L2 [%0];" ::"l"(from) : "memory");
#endif
}

template <int Bytes>
TCC_FN void store_shared(unsigned to, const void* v) {
  if constexpr (Bytes == 16) {
    const uint4 w = *static_cast<const uint4*>(v);
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w)
                 : "memory");
  } else if constexpr (Bytes == 8) {
    const uint2 w = *static_cast<const uint2*>(v);
    asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(to), "r"(w.x), "r"(w.y) : "memory");
  } else if constexpr (Bytes == 4) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(*static_cast<const unsigned*>(v)) : "memory");
  } else {
    asm volatile("st.shared.b16 [%0], %1;" ::"r"(to), "h"(*static_cast<const unsigned short*>(v)) : "memory");
  }
}
TCC_FN unsigned load_shared(unsigned from) {
  unsigned v;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(v) : "r"(from) : "memory");
  return v;
}

// Four (two) 8 x 8 matrices of 16-bit elements, or 8 x 4 of 32 bits: lane l gives the address of a row of 16 bytes of
// matrix l / 8, and gets two neighbours of row l / 4 of each. Transposed: of column l / 4, down.
template <bool Transposed>
TCC_FN void load_matrix_x4(unsigned (&r)[4], unsigned from) {
  if constexpr (Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from) : "memory");
}
template <bool Transposed>
TCC_FN void load_matrix_x2(unsigned (&r)[2], unsigned from) {
  if constexpr (Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(from) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(from)
                 : "memory");
}

enum { MMA_F16, MMA_BF16, MMA_TF32 };

// d += a b for 16 x 32 bytes of A and 32 bytes x 8 of B: k is 16 for elements of 16 bits, 8 for tf32.
template <int Kind>
TCC_FN void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  if constexpr (Kind == MMA_F16) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
    for (int h = 0; h < 2; ++h)
      asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                   : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                   : "r"(a[2 * h]), "r"(a[2 * h + 1]), "r"(b[h]));
#endif
  } else if constexpr (Kind == MMA_BF16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}
// An f32 rounded to the nearest tf32.
TCC_FN unsigned to_tf32(unsigned v) {
  unsigned r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(__uint_as_float(v)));
  return r;
}

// Blocks of one cluster: a barrier; one in two halves that orders no memory; floats out of the shared memory of block
// `rank`.
TCC_FN void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
TCC_FN void cluster_arrive() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
TCC_FN void cluster_wait() { asm volatile("barrier.cluster.wait.aligned;" ::: "memory"); }
// Count floats at an address of block `rank`'s shared memory; of 8, the last 4 lie `Far` bytes on.
template <int Far, int Count>
TCC_FN void load_cluster(float (&v)[Count], unsigned address, int rank) {
  unsigned at;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(address), "r"(rank));
  if constexpr (Count % 4 == 0) {
#pragma unroll
    for (int i = 0; i < Count; i += 4)
      asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                   : "=f"(v[i]), "=f"(v[i + 1]), "=f"(v[i + 2]), "=f"(v[i + 3])
                   : "r"(at + Far * (i / 4)) : "memory");
  } else {
#pragma unroll
    for (int i = 0; i < Count; ++i)
      asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v[i]) : "r"(at + 4 * i) : "memory");
  }
}

}  // namespace tcc
