# SPDX-License-Identifier: Apache-2.0
"""ONNX's backend tests through `tcc.backend`: the cases, what became of each, and a pool of processes to run many."""

from __future__ import annotations

import multiprocessing as mp
import os
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from tcc.errors import TccError

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")

# ONNX leaves the numbers of these open, so nothing can be compared.
RANDOM = ("test_bernoulli", "test_training_dropout_default", "test_training_dropout_mask", "test_training_dropout")


@dataclass
class Case:
    """A model with the inputs and outputs that ONNX stored for it."""

    name: str
    kind: str
    model: onnx.ModelProto
    data: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float

    @property
    def op(self) -> str:
        """The operator that a case is about: its rarest node."""
        ops = [n.op_type for n in self.model.graph.node]
        named = self.name.removeprefix("test_").replace("operator_", "").replace("_", "").lower()
        fitting = [o for o in ops if named.startswith(o.lower())]
        return max(fitting, key=len) if fitting else (ops[-1] if ops else "(none)")


@dataclass(frozen=True)
class Outcome:
    """`verdict`: pass, refused (one sentence said why), wrong or crash. `launches`: the kernels that the engine
    launches, `host`: the functions that it calls on the host."""

    name: str
    op: str
    verdict: str
    message: str = ""
    launches: int = 0
    host: tuple[str, ...] = ()


@cache
def cases() -> dict[str, Case]:
    """All cases by name."""
    out: dict[str, Case] = {}
    for kind in KINDS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the cases compute their infinities on the way
            loaded = load_model_tests(kind=kind)
        for case in loaded:
            if case.name.startswith(RANDOM) and "zero_ratio" not in case.name:
                continue
            if case.model is not None:
                data = [([_plain(v) for v in i], [_plain(v) for v in o]) for i, o in case.data_sets or []]
                out[case.name] = Case(case.name, kind, case.model, data, case.rtol, case.atol)
            elif case.model_dir is not None:
                model = onnx.load(os.path.join(case.model_dir, "model.onnx"))
                out[case.name] = Case(
                    case.name, kind, model, list(_stored(Path(case.model_dir), model)), case.rtol, case.atol
                )
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value


def _stored(folder: Path, model: onnx.ModelProto) -> Iterator[tuple[list[Any], list[Any]]]:
    for data in sorted(folder.glob("test_data_set_*")):
        yield _read(data, "input", model.graph.input), _read(data, "output", model.graph.output)


def _read(folder: Path, what: str, infos: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    out: list[Any] = []
    for i in range(len(list(folder.glob(f"{what}_*.pb")))):
        raw = (folder / f"{what}_{i}.pb").read_bytes()
        if infos[i].type.HasField("sequence_type"):
            out.append(numpy_helper.to_list(onnx.SequenceProto.FromString(raw)))
        else:
            out.append(numpy_helper.to_array(onnx.TensorProto.FromString(raw)))
    return out


def attempt(case: Case, **options: Any) -> Outcome:
    """Compile and run one case with the options of `tcc.compile`."""
    import tcc.backend

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rep = tcc.backend.prepare(case.model, "CPU", **options)
            for inputs, wanted in case.data:
                got = rep.run(inputs)
                for output, a, b in zip(case.model.graph.output, got, wanted, strict=True):
                    why = difference(case, a, b)
                    if why:
                        return Outcome(case.name, case.op, "wrong", f"{output.name}: {why}")
    except TccError as e:
        return Outcome(case.name, case.op, "refused", str(e))
    except Exception as e:
        last = traceback.extract_tb(e.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return Outcome(case.name, case.op, "crash", f"{type(e).__name__} at {where}: {e}")
    ops = [op for engine in rep.engines for op in schedule_ops(engine.data.schedule)]
    launches = sum(op["op"] == "launch" for op in ops)
    return Outcome(
        case.name, case.op, "pass", "", launches, tuple(op["function"] for op in ops if op["op"] == "host_call")
    )


def schedule_ops(part: Any) -> Iterator[dict[str, Any]]:
    """Every op of a schedule program, those inside others too."""
    if isinstance(part, dict):
        if "op" in part:
            yield part
        for inner in part.values():
            yield from schedule_ops(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from schedule_ops(inner)


def difference(case: Case, given: Any, wanted: Any) -> str:
    """What is wrong with an output (a tensor, a list of them, or None); "" if nothing."""
    if wanted is None or given is None:
        return "" if given is wanted else f"it is {type(given).__name__}, not {type(wanted).__name__}"
    if isinstance(wanted, list) or isinstance(given, list):
        if not isinstance(wanted, list) or not isinstance(given, list):
            return f"it is a {type(given).__name__}, not a {type(wanted).__name__}"
        if len(given) != len(wanted):
            return f"it holds {len(given)} values, not {len(wanted)}"
        found = (difference(case, a, b) for a, b in zip(given, wanted, strict=True))
        return next((f"item {i}: {why}" for i, why in enumerate(found) if why), "")
    got, want = np.asarray(given), np.asarray(wanted)
    if got.shape != want.shape:
        return f"its shape is {got.shape}, not {want.shape}"
    if want.dtype.kind in "OUST":
        return "" if got.astype(str).tolist() == want.astype(str).tolist() else "the texts differ"
    if got.dtype != want.dtype:
        return f"its type is {got.dtype}, not {want.dtype}"
    # Results of 16-bit floats may differ by roundings in the middle; the cases allow less than one of their ulps.
    rtol = max({"bfloat16": 2e-2, "float16": 2e-3}.get(want.dtype.name, 0.0), case.rtol)
    wide = np.complex128 if want.dtype.kind == "c" else np.float64
    a, b = got.astype(wide), want.astype(wide)
    with np.errstate(all="ignore"):
        close = np.isclose(a, b, rtol=rtol, atol=max(case.atol, 1e-6), equal_nan=True)
    if close.all():
        return ""
    at = tuple(int(i) for i in np.argwhere(~close)[0])
    return f"{int((~close).sum())} of {close.size} differ, first at {at}: {a[at]}, not {b[at]}"


def attempt_all(names: Sequence[str], processes: int = 2, **options: Any) -> list[Outcome]:
    """Run cases in `processes` forked processes; one that dies gives its case the verdict crash and is replaced."""
    cases()
    context = mp.get_context("fork")
    waiting = list(names)[::-1]
    found: dict[str, Outcome] = {}
    workers: dict[Connection, tuple[Any, str]] = {}

    def start() -> None:
        mine, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, options), daemon=True)
        process.start()
        theirs.close()
        give(mine, process)

    def give(pipe: Connection, process: Any) -> None:
        if waiting:
            name = waiting.pop()
            workers[pipe] = (process, name)
            pipe.send(name)
        else:
            workers.pop(pipe, None)
            pipe.send(None)
            process.join()

    for _ in range(min(processes, len(waiting))):
        start()
    while workers:
        for pipe in wait(list(workers)):
            assert isinstance(pipe, Connection)
            process, name = workers[pipe]
            try:
                found[name] = pipe.recv()
            except EOFError:
                process.join()
                found[name] = Outcome(name, cases()[name].op, "crash", f"the process ended with {process.exitcode}")
                del workers[pipe]
                if waiting:
                    start()
                continue
            give(pipe, process)
    return [found[n] for n in names]


def _serve(pipe: Connection, options: dict[str, Any]) -> None:
    while (name := pipe.recv()) is not None:
        pipe.send(attempt(cases()[name], **options))
