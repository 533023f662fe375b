// SPDX-License-Identifier: Apache-2.0
// A copy of ELEMENTS elements, then LINES × STEPS updates. TCC_WINNERS 0: a thread a line does the line's updates in
// order. 1: of the updates of one element only the last counts; a first launch notes the highest update of every element
// in a workspace of zeros, and a thread an update writes if it is the one noted.
//
// Generated: tcc_copy(args, element), tcc_place(args, line, step), tcc_update(args, line, step).
extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY(TCC_PARAMS) {
  TCC_ARGS;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  const long long element = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
#if TCC_VECTOR_COPY
  constexpr long long VECTORS = BYTES / 16;
  if (element < VECTORS) reinterpret_cast<uint4*>(args.r0)[element] = reinterpret_cast<const uint4*>(TCC_SOURCE)[element];
  if (element < BYTES % 16)
    reinterpret_cast<unsigned char*>(args.r0)[VECTORS * 16 + element] =
        reinterpret_cast<const unsigned char*>(TCC_SOURCE)[VECTORS * 16 + element];
#else
  if (element < ELEMENTS) tcc_copy(args, static_cast<ElementCoordinate>(element));
#endif
}

#if TCC_WINNERS
extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY_MARK(TCC_PARAMS) {
  TCC_ARGS;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  const long long i = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= LINES * STEPS) return;
  const long long step = i / LINES, line = i % LINES;
  const long long place = tcc_place(args, static_cast<LineCoordinate>(line), static_cast<StepCoordinate>(step));
  atomicMax(reinterpret_cast<unsigned*>(args.w0) + place, static_cast<unsigned>(step) + 1u);
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS) TCC_ENTRY_FINISH(TCC_PARAMS) {
  TCC_ARGS;
  TCC_PDL_LAUNCH();
  TCC_PDL_WAIT();
  const long long i = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
#if TCC_WINNERS
  if (i >= LINES * STEPS) return;
  const long long step = i / LINES, line = i % LINES;
  const long long place = tcc_place(args, static_cast<LineCoordinate>(line), static_cast<StepCoordinate>(step));
  if (reinterpret_cast<const unsigned*>(args.w0)[place] == static_cast<unsigned>(step) + 1u)
    tcc_update(args, static_cast<LineCoordinate>(line), static_cast<StepCoordinate>(step));
#else
  if (i >= LINES) return;
  for (long long step = 0; step < STEPS; ++step)
    tcc_update(args, static_cast<LineCoordinate>(i), static_cast<StepCoordinate>(step));
#endif
}
