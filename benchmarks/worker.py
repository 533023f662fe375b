# SPDX-License-Identifier: Apache-2.0
# pyright: reportMissingImports=false
"""One contender of a comparison in a process of its own: `python -m benchmarks.worker SPEC`, SPEC being JSON.

`contender` says which: `tcc` (an engine file, numpy in and out), `onnxruntime`, `tcc-gpu` (an engine file on device
arrays), `torch` (float16, eager, captured in a CUDA graph), and `compile`, which makes an engine with a cold search
and ends.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import zoo
from benchmarks.compare import PLAIN, serve

Outputs = dict[str, np.ndarray]
Contender = tuple[Callable[[], float], Callable[[], Outputs], dict[str, Any]]
NUMPY_DTYPES = {"f32": np.float32, "f16": np.float16, "i32": np.int32, "i64": np.int64}
TORCH_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "i32": "int32", "i64": "int64"}
SAMPLE_SECONDS = 3e-3  # what one sample of a GPU contender takes, over as many runs as that needs


def clocked(call: Callable[[], Any]) -> Callable[[], float]:
    """One call, by the wall clock."""

    def sample() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return sample


def compile_engine(spec: dict[str, Any]) -> Contender:
    """Compile with what the spec asks for, into the file `engine`; the facts are its seconds and kernels."""
    import tcc

    model, shapes = zoo.load(spec["model"]), zoo.shapes(spec["model"], spec["batch"])
    start = time.perf_counter()
    accuracy = spec.get("accuracy")
    engine = tcc.compile(
        model,
        target=spec["target"],
        opt_level=spec["opt_level"],
        precision=spec["precision"],
        shapes=shapes,
        search_seconds=spec["search_seconds"],
        records=spec["records"],
        accuracy=accuracy,
        calibration=() if accuracy is None else zoo.inputs(spec["model"], batch=spec["batch"]),
    )
    seconds = time.perf_counter() - start
    engine.save(spec["engine"])
    return lambda: 0.0, dict, {"seconds": seconds, "kernels": len(engine.kernels)}


def tcc_numpy(spec: dict[str, Any]) -> Contender:
    import tcc

    start = time.perf_counter()
    engine = tcc.load(spec["engine"])
    inputs = zoo.inputs(spec["model"], batch=spec["batch"])
    # An engine of another precision may take its inputs in it.
    inputs = {each.name: inputs[each.name].astype(NUMPY_DTYPES[str(each.dtype)], copy=False) for each in engine.inputs}
    engine(inputs)
    return clocked(lambda: engine(inputs)), lambda: engine(inputs), {"seconds": time.perf_counter() - start}


def onnxruntime_cpu(spec: dict[str, Any]) -> Contender:
    import onnxruntime as ort

    model, inputs = zoo.load(spec["model"]).SerializeToString(), zoo.inputs(spec["model"], batch=spec["batch"])

    def session(level: ort.GraphOptimizationLevel) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = spec["threads"]
        options.graph_optimization_level = level
        options.log_severity_level = 3
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def named(one: ort.InferenceSession) -> Outputs:
        names = [output.name for output in one.get_outputs()]
        return dict(zip(names, (np.asarray(each) for each in one.run(None, inputs)), strict=True))

    start = time.perf_counter()
    best = session(ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    best.run(None, inputs)
    seconds = time.perf_counter() - start
    # How far its own optimiser moves its answers is the yardstick for anyone else's.
    plain = named(session(ort.GraphOptimizationLevel.ORT_DISABLE_ALL))
    facts = {"seconds": seconds, "version": ort.__version__}
    return clocked(lambda: best.run(None, inputs)), lambda: {**named(best), **_prefixed(PLAIN, plain)}, facts


def _prefixed(prefix: str, outputs: Outputs) -> Outputs:
    return {prefix + name: value for name, value in outputs.items()}


def on_device(call: Callable[[], Any]) -> Callable[[], float]:
    """Seconds of a call on PyTorch's current stream, by CUDA events around as many as `SAMPLE_SECONDS` needs."""
    import torch

    def timed(repeats: int) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3 / repeats

    timed(3)
    repeats = max(1, round(SAMPLE_SECONDS / timed(3)))
    return lambda: timed(repeats)


def _device_inputs(spec: dict[str, Any], dtypes: dict[str, Any]) -> dict[str, Any]:
    import torch

    made = zoo.inputs(spec["model"], batch=spec["batch"])
    return {name: torch.from_numpy(value).cuda().to(dtypes.get(name)) for name, value in made.items()}


def tcc_gpu(spec: dict[str, Any]) -> Contender:
    import torch

    import tcc

    start = time.perf_counter()
    engine = tcc.load(spec["engine"])
    wanted = {each.name: getattr(torch, TORCH_DTYPES[str(each.dtype)]) for each in engine.inputs}
    inputs = _device_inputs(spec, wanted)
    with torch.cuda.stream(torch.cuda.Stream()):
        bound = engine.bind(inputs)
        bound()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        sample = on_device(bound)

    def outputs() -> Outputs:
        results = bound()
        torch.cuda.synchronize()
        return {name: torch.from_dlpack(value).float().cpu().numpy() for name, value in results.items()}

    return sample, outputs, {"seconds": seconds, "device": torch.cuda.get_device_name()}


def torch_gpu(spec: dict[str, Any]) -> Contender:
    """Eager float16 in a CUDA graph; the outputs are also those of the same module in float32, under `plain/`."""
    import torch

    from benchmarks.torch_models import load_weights, network

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    net = network(spec["model"], rival=True)
    load_weights(net.module, zoo.weights(spec["model"]))
    module = net.module.cuda()
    given = _device_inputs(spec, {})
    full = [given[name] for name in net.inputs]
    start = time.perf_counter()
    with torch.inference_mode():
        plain = _tuple(module(*full))
        module.half()
        half = [value.half() if value.is_floating_point() else value for value in full]
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                module(*half)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = _tuple(module(*half))
    graph.replay()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start

    def outputs() -> Outputs:
        graph.replay()
        torch.cuda.synchronize()
        named = dict(zip(net.outputs, (each.float().cpu().numpy() for each in results), strict=True))
        exact = dict(zip(net.outputs, (each.float().cpu().numpy() for each in plain), strict=True))
        return {**named, **_prefixed(PLAIN, exact)}

    facts = {"seconds": seconds, "version": torch.__version__, "device": torch.cuda.get_device_name()}
    return on_device(graph.replay), outputs, facts


def _tuple(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


CONTENDERS = {
    "compile": compile_engine, "tcc": tcc_numpy, "onnxruntime": onnxruntime_cpu, "tcc-gpu": tcc_gpu, "torch": torch_gpu,
}  # fmt: skip


def main() -> None:
    spec = json.loads(sys.argv[1])
    Path(spec["engine"]).parent.mkdir(parents=True, exist_ok=True)
    serve(lambda: CONTENDERS[spec["contender"]](spec))


if __name__ == "__main__":
    main()
