# SPDX-License-Identifier: Apache-2.0
"""`tcc-run`: runs an engine or a model on inputs, and can compare the outputs with ONNX Runtime's."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.compiler.cli.common import ArgumentParser, print_table, run
from tcc.errors import FailureError, InputError

if TYPE_CHECKING:
    from tcc.runtime.engine import Engine

Arrays = dict[str, "np.ndarray[Any, Any]"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command `tcc-run`."""
    return run("tcc-run", _main, argv)


def add_engine_options(p: argparse.ArgumentParser) -> None:
    """The options that say which engine, or how to make one of a model; `open_engine` obeys them."""
    p.add_argument("file", help="an engine (.tcc) or an ONNX model")
    p.add_argument("-O", dest="opt_level", type=int, default=1, metavar="N", help="for a model: 0 to 3 (default: 1)")
    p.add_argument("--target", default="native", help="for a model: the target (default: native)")
    p.add_argument("--precision", default="f32", help="for a model: f32 (default), tf32, f16 or bf16")
    p.add_argument("--shape", action="append", default=[], metavar="NAME=1x3x224x224", help="bind an input's free dims")
    p.add_argument("--search-seconds", type=float, metavar="S", help="for a model: how long the search may take")
    p.add_argument("--records", type=Path, metavar="F", help="for a model: the timing cache")
    p.add_argument("--input", action="append", default=[], metavar="NAME=F.npy", help="an input; or one F.npz with all")
    p.add_argument("--seed", type=int, default=0, help="of random inputs, for those not given (default: 0)")
    p.add_argument("--json", action="store_true", help="print JSON")


def open_engine(args: argparse.Namespace) -> Engine:
    """The engine of the file, compiled if it is a model."""
    from tcc.runtime import load

    path = Path(args.file)
    if not path.exists():
        raise InputError(f"there is no file {args.file}")
    with open(path, "rb") as f:
        head = f.read(4)
    if head[:2] == b"PK":
        return load(path)
    from tcc.compiler.api import compile
    from tcc.compiler.cli.tcc import parse_shapes

    return compile(
        path, target=args.target, opt_level=args.opt_level, shapes=parse_shapes(args.shape),  # type: ignore[arg-type]
        precision=args.precision, search_seconds=args.search_seconds, records=args.records,
    )  # fmt: skip


def gather_inputs(engine: Engine, given: Sequence[str], seed: int) -> Arrays:
    """One array an input: from `NAME=F.npy`, `F.npz`, or seeded random numbers of its type and shape."""
    arrays: Arrays = {}
    for text in given:
        name, found, path = text.rpartition("=")
        loaded = load_arrays(path if found else text)
        if isinstance(loaded, Mapping):
            arrays.update(loaded)
        elif found:
            arrays[name] = loaded
        elif len(engine.inputs) == 1:
            arrays[engine.inputs[0].name] = loaded
        else:
            raise InputError(f"--input {text} does not say which input it is; write it as --input NAME={text}")
    from tcc.runtime.dtypes import numpy_dtype

    names = [i.name for i in engine.inputs]
    for name in arrays:
        if name not in names:
            raise InputError(f"there is no input {name}; the inputs are {', '.join(names)}")
    if seed < 0:
        raise InputError(f"--seed is 0 or more, not {seed}")
    rng = np.random.default_rng(seed)
    for spec in engine.inputs:
        random = random_array(numpy_dtype(spec.dtype), [int(d) for d in spec.shape], rng)
        arrays.setdefault(spec.name, random)
    return {n: arrays[n] for n in names}


def load_arrays(path: str) -> Any:
    """The array of an .npy file, or the arrays by name of an .npz; InputError for other files."""
    try:
        loaded = np.load(path, allow_pickle=False)
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror or e}") from None
    except ValueError as e:
        raise InputError(f"{path} is no .npy or .npz file of numbers: {e}") from None
    return dict(loaded.items()) if hasattr(loaded, "items") else loaded


def random_array(dtype: Any, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Normal floats, integers in [0, 100), fair bools."""
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        return rng.integers(0, 100, shape).astype(kind)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    return np.asarray(rng.standard_normal(shape)).astype(kind)


def _main(argv: Sequence[str]) -> int:
    p = ArgumentParser(prog="tcc-run", description="Run an engine, or a model compiled for the purpose.")
    add_engine_options(p)
    p.add_argument("-o", "--output", type=Path, metavar="F.npz", help="write the outputs there")
    p.add_argument(
        "--check", action="store_true", help="compare with ONNX Runtime and print the worst error per output"
    )
    p.add_argument("--model", metavar="M.onnx", help="with --check and an engine: the model it was made of")
    p.add_argument("--rtol", type=float, default=1e-4, help="largest error allowed, of the largest reference value")
    args = p.parse_args(argv)
    engine = open_engine(args)
    inputs = gather_inputs(engine, args.input, args.seed)
    outputs = {n: as_array(v) for n, v in engine(inputs).items()}
    if args.output is not None:
        _save(args.output, outputs)
    if args.check:
        return _check(args, inputs, outputs)
    rows = [(n, str(a.dtype), "x".join(map(str, a.shape)), *(_summary(a))) for n, a in outputs.items()]
    if args.json:
        print(json.dumps([dict(zip(("name", "dtype", "shape", "min", "max", "mean"), r, strict=True)) for r in rows]))
    else:
        print_table(["output", "dtype", "shape", "min", "max", "mean"], rows)
    return 0


def as_array(value: Any) -> np.ndarray[Any, Any]:
    """An output as an array; a sequence of maps becomes a row of values for each, in the order of its keys."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return np.asarray([[row[key] for key in sorted(row)] for row in value])
    return np.asarray(value)


def _summary(a: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    if a.size == 0 or a.dtype.kind not in "biuf":
        return (0.0, 0.0, 0.0)
    wide = a.astype(np.float64)
    return (float(wide.min()), float(wide.max()), float(wide.mean()))


def _save(path: Path, outputs: Arrays) -> None:
    import io

    from tcc.compiler.cli.common import write_output

    stream = io.BytesIO()
    np.savez(stream, **outputs)  # type: ignore[arg-type]
    write_output(str(path), stream.getvalue())


def _check(args: argparse.Namespace, inputs: Arrays, outputs: Arrays) -> int:
    """Compare with ONNX Runtime: exit code 1 if an output is off by more than --rtol of its largest value."""
    try:
        import onnxruntime as ort
    except ImportError:
        raise InputError("--check needs onnxruntime: pip install onnxruntime") from None
    model = args.model or (None if args.file.endswith(".tcc") else args.file)
    if model is None:
        raise InputError("--check on an engine needs the model it was made of: --model M.onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        reference = dict(zip(names, session.run(None, inputs), strict=True))
    except Exception as e:  # onnxruntime's errors have no common base class
        raise FailureError(f"ONNX Runtime does not run {model}: {e}") from None
    rows: list[tuple[str, float, float, str]] = []
    for name, mine in outputs.items():
        worst, largest = worst_error(mine, as_array(reference[name]))
        rows.append((name, worst, largest, "ok" if worst <= args.rtol * max(largest, 1e-30) else "off"))
    if args.json:
        keys = ("output", "error", "largest", "verdict")
        print(json.dumps([dict(zip(keys, r, strict=True)) for r in rows]))
    else:
        print_table(["output", "largest error", "largest value", f"≤ {args.rtol:g} of it"], rows)
    return 0 if all(r[3] == "ok" for r in rows) else 1


def worst_error(mine: np.ndarray[Any, Any], reference: np.ndarray[Any, Any]) -> tuple[float, float]:
    """(largest |difference|, largest |reference|); a NaN or a shape that only one side has is an infinite error."""
    if mine.shape != reference.shape:
        return float("inf"), 0.0
    if mine.size == 0:
        return 0.0, 0.0
    if mine.dtype.kind not in "biuf":
        return (0.0 if np.array_equal(mine, reference) else float("inf")), 0.0
    a, b = mine.astype(np.float64), reference.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    difference = np.where(np.isnan(difference), np.inf, difference)
    finite = np.abs(b[np.isfinite(b)])
    return float(difference.max()), float(finite.max()) if finite.size else 0.0
