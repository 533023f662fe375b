// SPDX-License-Identifier: Apache-2.0
// Thread block clusters (sm_90 and later): meeting, and reading what lies in another block's shared memory.
namespace tcc {

TCC_FN void cluster_sync() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// The value at the same place as `p` in the shared memory of block `rank` of the cluster; 4 or 8 bytes.
template <class T>
TCC_FN T read_cluster(const T* p, int rank) {
  T out = *p;
#if __CUDA_ARCH__ >= 900
  const unsigned own = static_cast<unsigned>(__cvta_generic_to_shared(p));
  unsigned far;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(far) : "r"(own), "r"(rank));
  if constexpr (sizeof(T) == 8) {
    unsigned long long bits;
    asm volatile("ld.shared::cluster.u64 %0, [%1];" : "=l"(bits) : "r"(far) : "memory");
    out = reinterpret_cast<const T&>(bits);
  } else {
    unsigned bits;
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(bits) : "r"(far) : "memory");
    out = reinterpret_cast<const T&>(bits);
  }
#endif
  return out;
}

}  // namespace tcc
