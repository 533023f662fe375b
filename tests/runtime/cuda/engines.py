# SPDX-License-Identifier: Apache-2.0
"""Small CUDA engines written by hand, and the kernels they use: as CUDA C++ for a GPU, in numpy for the fake driver."""

import json
import math

import numpy as np

from tcc.compiler.engine_writer import EngineContent, to_bytes, weight_offsets
from tcc.runtime import load
from tcc.runtime.dtypes import dtype_name, numpy_dtype
from tests.runtime.cuda.fake_driver import view

SOURCE = r"""
#if __CUDA_ARCH__ >= 900
#define WAIT() asm volatile("griddepcontrol.wait;" ::: "memory")
#define TRIGGER() asm volatile("griddepcontrol.launch_dependents;" ::: "memory")
#else
#define WAIT()
#define TRIGGER()
#endif
#define FIRST() TRIGGER(); WAIT()
#define I (blockIdx.x * blockDim.x + threadIdx.x)
extern "C" {
__global__ void add(float *out, const float *a, const float *b, int n) { FIRST(); if (I < n) out[I] = a[I] + b[I]; }
__global__ void scale(float *out, const float *a, float s, int n) { FIRST(); if (I < n) out[I] = a[I] * s; }
__global__ void bump(float *x, float s, int n) { FIRST(); if (I < n) x[I] += s; }
__global__ void below(bool *out, const float *x, float limit) { FIRST(); if (I == 0) out[0] = x[0] < limit; }
__global__ void count(long long *out, const float *x, int n) {
  if (I == 0) { long long c = 0; for (int i = 0; i < n; ++i) c += x[i] > 0; out[0] = c; }
}
__global__ void compact(float *out, const float *x, int n) {
  if (I == 0) { int c = 0; for (int i = 0; i < n; ++i) if (x[i] > 0) out[c++] = x[i]; }
}
}
"""


def _floats(pointer, n):
    return view(pointer, n)


def _n(raw):
    return int.from_bytes(raw, "little")


def _f(raw):
    return np.frombuffer(raw, np.float32)[0]


def _add(out, a, b, n):
    _floats(out, _n(n))[:] = _floats(a, _n(n)) + _floats(b, _n(n))


def _scale(out, a, s, n):
    _floats(out, _n(n))[:] = _floats(a, _n(n)) * _f(s)


def _bump(x, s, n):
    _floats(x, _n(n))[:] += _f(s)


def _below(out, x, limit):
    view(out, 1, np.uint8)[0] = _floats(x, 1)[0] < _f(limit)


def _count(out, x, n):
    view(out, 1, np.int64)[0] = np.count_nonzero(_floats(x, _n(n)) > 0)


def _compact(out, x, n):
    kept = _floats(x, _n(n))
    kept = kept[kept > 0]
    _floats(out, len(kept))[:] = kept


KERNELS = {"add": _add, "scale": _scale, "bump": _bump, "below": _below, "count": _count, "compact": _compact}
SIZES = {
    "add": [8, 8, 8, 4],
    "scale": [8, 8, 4, 4],
    "bump": [8, 4, 4],
    "below": [8, 8, 4],
    "count": [8, 8, 4],
    "compact": [8, 8, 4],
}
FAKE_CUBIN = json.dumps(SIZES).encode()


class Program:
    """Collects buffers, kernels and ops; `engine()` writes and loads the engine."""

    def __init__(self, cubin, arch="sm_90", sizes=SIZES):
        self.content = EngineContent(
            model="hand", target={"kind": "cuda", "name": arch, "arch": 90, "features": []}, inputs=[], outputs=[],
            buffers=[], schedule=[],
        )  # fmt: skip
        self.content.files = {"kernels/all.cubin": cubin}
        self.body = self.content.schedule
        self.weights = []
        self.arena = 0
        for entry in sizes:
            self.kernel(entry)

    def kernel(self, entry, binary="kernels/all.cubin"):
        self.content.kernels[entry] = {"files": {"binary": binary}, "entry": entry, "template": "hand", "config": {}}

    def buffer(self, space, shape, dtype="f32", **more):
        itemsize = numpy_dtype(dtype).itemsize
        nbytes = (
            ["mul", itemsize, *shape] if any(not isinstance(d, int) for d in shape) else math.prod(shape) * itemsize
        )
        self.content.buffers.append({"space": space, "dtype": dtype, "shape": list(shape), "bytes": nbytes, **more})
        return len(self.content.buffers) - 1

    def input(self, name, shape, dtype="f32"):
        buffer = self.buffer("input", shape, dtype, position=len(self.content.inputs))
        self.content.inputs.append({"name": name, "dtype": dtype, "shape": list(shape), "buffer": buffer})
        return buffer

    def output(self, name, shape, dtype="f32", buffer=None):
        if buffer is None:
            buffer = self.buffer("output", shape, dtype, position=len(self.content.outputs))
        self.content.outputs.append({"name": name, "dtype": dtype, "shape": list(shape), "buffer": buffer})
        return buffer

    def temp(self, shape, dtype="f32", offset=None):
        if offset is None:
            offset = self.arena
            if all(isinstance(d, int) for d in shape):
                self.arena += -(-math.prod(shape) * numpy_dtype(dtype).itemsize // 256) * 256
        return self.buffer("arena", shape, dtype, offset=offset)

    def weight(self, array):
        self.weights.append(np.asarray(array))
        offset = weight_offsets([w.nbytes for w in self.weights])[-1]
        name = f"w{len(self.weights) - 1}"
        return self.buffer("weight", array.shape, dtype_name(array.dtype), name=name, offset=offset)

    def launch(self, kernel, *params, reads=(), writes=(), n=None, **more):
        packed = []
        for param in params:
            if isinstance(param, dict):
                packed.append(param)
            elif isinstance(param, float):
                packed.append({"scalar": param, "dtype": "f32"})
            else:
                packed.append({"buffer": param})
        if n is not None:
            packed.append({"scalar": n, "dtype": "i32"})
        grid = [["ceildiv", n, 128] if n is not None else 1, 1, 1]
        op = {"op": "launch", "kernel": kernel, "params": packed, "reads": list(reads), "writes": list(writes),
              "grid": grid, "block": [128, 1, 1], "cluster": None, "shared": 0, "pdl": False, "cooperative": False,
              "loc": [f"{kernel}_node"], **more}  # fmt: skip
        return op

    def add(self, out, a, b, n, **more):
        return self.launch("add", out, a, b, reads=[a, b], writes=[out], n=n, **more)

    def scale(self, out, a, s, n, **more):
        return self.launch("scale", out, a, float(s), reads=[a], writes=[out], n=n, **more)

    def bump(self, x, s, n, **more):
        return self.launch("bump", x, float(s), reads=[x], writes=[x], n=n, **more)

    def segment(self, *ops, into=None):
        target = self.content.schedule if into is None else into
        name = f"segment_{len(self.content.schedule)}_{len(target)}"
        op = {"op": "segment", "name": name, "body": list(ops)}
        target.append(op)
        return op

    def raw(self):
        self.content.weights = self.weights
        if self.content.arena["bytes"] == 0:
            self.content.arena = {"bytes": self.arena, "align": 256}
        return to_bytes(self.content)

    def engine(self):
        return load(self.raw())
