// SPDX-License-Identifier: Apache-2.0
// How a recurrent layer whose state is quantized finds integers for what it multiplies: by the range of all its elements,
// with 0 in it, as ONNX DynamicQuantizeLinear does.
struct Quanta {
  float scale, by, zero;
  // What v becomes, less the zero point.
  TCC_FN int of(float v) const {
    return static_cast<int>(tcc::arith_min(tcc::arith_max(rintf(v / by) + zero, 0.0f), 255.0f) - zero);
  }
};

// Of the extremes that each thread of a block has seen; `ends` is shared memory for two numbers a warp.
template <int COUNT>
TCC_FN Quanta tcc_quanta(float low, float high, float* ends) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) {
    low = tcc::arith_min(low, __shfl_xor_sync(0xffffffffu, low, d));
    high = tcc::arith_max(high, __shfl_xor_sync(0xffffffffu, high, d));
  }
  if (threadIdx.x % 32 == 0) {
    ends[threadIdx.x / 32] = low;
    ends[COUNT + threadIdx.x / 32] = high;
  }
  __syncthreads();
  for (int w = 0; w < COUNT; ++w) {
    low = tcc::arith_min(low, ends[w]);
    high = tcc::arith_max(high, ends[COUNT + w]);
  }
  __syncthreads();
  Quanta q;
  q.scale = (high - low) / 255.0f;
  q.by = q.scale == 0.0f ? 1.0f : q.scale;
  q.zero = rintf(tcc::arith_min(tcc::arith_max(-low / q.by, 0.0f), 255.0f));
  return q;
}
