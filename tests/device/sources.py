# SPDX-License-Identifier: Apache-2.0
"""CUDA C++ kernels of the device tests that only a GPU can run: tensor maps, clusters, grid barriers, faults."""

TILE = r"""
struct alignas(64) TensorMap { char bytes[128]; };
// Copies the 8 x 32 tile at block (x, y) of a row-major f32 matrix; outside it reads zeros.
extern "C" __global__ void tile(const __grid_constant__ TensorMap map, float *out) {
  __shared__ alignas(128) float tile[8 * 32];
  __shared__ alignas(8) unsigned long long barrier;
  unsigned to = (unsigned)__cvta_generic_to_shared(tile), bar = (unsigned)__cvta_generic_to_shared(&barrier);
  int x = blockIdx.x * 32, y = blockIdx.y * 8;
  if (threadIdx.x == 0) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(bar));
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 1024;" ::"r"(bar) : "memory");
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, %3}], [%4];"
                 ::"r"(to), "l"(&map), "r"(x), "r"(y), "r"(bar) : "memory");
  }
  __syncthreads();
  unsigned done = 0;
  while (!done)
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done) : "r"(bar) : "memory");
  int block = blockIdx.y * gridDim.x + blockIdx.x;
  for (int i = threadIdx.x; i < 256; i += blockDim.x) out[block * 256 + i] = tile[i];
}
"""

CLUSTER = r"""
// Each block writes its cluster's size and a value it reads from the shared memory of the cluster's next block.
extern "C" __global__ void ring(int *out) {
  __shared__ int mine;
  unsigned rank, size, theirs;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  mine = 100 + blockIdx.x;
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
  unsigned here = (unsigned)__cvta_generic_to_shared(&mine), next = (rank + 1) % size;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(theirs) : "r"(here), "r"(next));
  int value;
  asm volatile("ld.shared::cluster.s32 %0, [%1];" : "=r"(value) : "r"(theirs) : "memory");
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
  out[2 * blockIdx.x] = size;
  out[2 * blockIdx.x + 1] = value;
}
"""

GRID = r"""
// A barrier over the whole grid, then a value of the opposite block: wrong unless all blocks are resident at once.
extern "C" __global__ void opposite(int *out, int *values, unsigned *arrived) {
  if (threadIdx.x == 0) {
    values[blockIdx.x] = 7 * blockIdx.x;
    __threadfence();
    atomicAdd(arrived, 1);
    long long start = clock64();
    while (*(volatile unsigned *)arrived < gridDim.x && clock64() - start < 100000000ll) {}
    __threadfence();
    out[blockIdx.x] = ((volatile int *)values)[gridDim.x - 1 - blockIdx.x];
  }
}
"""

FAULT = r"""
extern "C" __global__ void fault(float *out, const float *x) { out[(1ull << 40) + threadIdx.x] = x[0]; }
"""

SPEED = r"""
#define WAIT() asm volatile("griddepcontrol.wait;" ::: "memory")
#define TRIGGER() asm volatile("griddepcontrol.launch_dependents;" ::: "memory")
extern "C" {
__global__ void empty(float *x) { TRIGGER(); WAIT(); }
__global__ void copy(float4 *out, const float4 *in, int n) {
  TRIGGER(); WAIT();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) out[i] = in[i];
}
// About `rounds` dependent multiply-adds: some microseconds on a few blocks.
__global__ void spin(float *out, const float *in, int rounds) {
  TRIGGER(); WAIT();
  float v = in[threadIdx.x];
  for (int i = 0; i < rounds; ++i) v = v * 1.0001f + 0.5f;
  out[blockIdx.x * blockDim.x + threadIdx.x] = v;
}
}
"""
