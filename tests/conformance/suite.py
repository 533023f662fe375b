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
from onnx.backend.test.runner import Runner

from tcc.errors import TccError
from tests.conformance.without_kernel import WITHOUT_KERNEL

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")

BROKEN = ("crash", "refused")
"""Verdicts after which a process is replaced."""

SKIPS = Path(__file__).with_name("skips.txt")


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
    def ops(self) -> set[str]:
        """The operators of the model, those of bodies and functions too."""
        nodes = [*self.model.graph.node, *(n for f in self.model.functions for n in f.node)]
        found: set[str] = set()
        while nodes:
            node = nodes.pop()
            found.add(node.op_type)
            nodes += [n for a in node.attribute for g in [a.g, *a.graphs] for n in g.node]
        return found

    @property
    def op(self) -> str:
        """The operator that a case is about: the one that its name names, else its last node; of a real model the
        model."""
        if self.kind == "real":
            return "(real models)"
        ops = [n.op_type for n in self.model.graph.node]
        named = self.name.removeprefix("test_").replace("operator_", "").replace("_", "").lower()
        fitting = [o for o in ops if named.startswith(o.lower())]
        return max(fitting, key=len) if fitting else (ops[-1] if ops else "(none)")


@dataclass(frozen=True)
class Outcome:
    """`verdict`: pass, refused (one sentence said why), wrong, crash, or idle (right, but no kernel was launched, and
    the case has numeric work). `launches`: the kernels that the engine launches, `host`: the functions that it calls on
    the host."""

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
            if case.name in skips():
                continue
            if case.url is not None and "/light/" in case.url:
                out[case.name] = _light(case)
            elif case.model is not None:
                data = [([_plain(v) for v in i], [_plain(v) for v in o]) for i, o in case.data_sets or []]
                out[case.name] = Case(case.name, kind, case.model, data, case.rtol, case.atol)
            elif case.model_dir is not None:
                model = onnx.load(os.path.join(case.model_dir, "model.onnx"))
                out[case.name] = Case(
                    case.name, kind, model, list(_stored(Path(case.model_dir), model)), case.rtol, case.atol
                )
    return out


@cache
def skips() -> dict[str, str]:
    """Cases that cannot be reproduced by construction, and why: the lines of skips.txt."""
    rows = [line.split(None, 1) for line in SKIPS.read_text().splitlines() if line and not line.startswith("#")]
    return {row[0]: row[1] for row in rows}


def _light(case: Any) -> Case:
    """A real model whose weights are computed, from the files of the onnx package: inputs are as onnx's runner makes
    them, outputs stored."""
    path = Path(onnx.__file__).parent.parent / case.url
    model = onnx.load(path)
    held = {t.name for t in model.graph.initializer}
    infos = [i for i in model.graph.input if i.name not in held]
    inputs = [Runner.generate_dummy_data(i, seed=0, name=case.model_name, random=False) for i in infos]
    stored = [path.with_name(f"{path.stem}_output_{i}.pb") for i in range(len(model.graph.output))]
    outputs = [numpy_helper.to_array(onnx.TensorProto.FromString(p.read_bytes())) for p in stored]
    return Case(case.name, "real", model, [(inputs, outputs)], case.rtol, case.atol)


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


def attempt(case: Case, device: str = "CPU", **options: Any) -> Outcome:
    """Compile and run one case on a device (of `tcc.backend`) with the options of `tcc.compile`."""
    import tcc.backend

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rep = tcc.backend.prepare(case.model, device, **options)
            for inputs, wanted in case.data:
                got = rep.run(inputs)
                for output, a, b in zip(case.model.graph.output, got, wanted, strict=True):
                    why = difference(case, a, b)
                    if why:
                        return Outcome(case.name, case.op, "wrong", f"{output.name}: {why}")
    except TccError as e:
        return Outcome(case.name, case.op, "refused", " ".join(str(e).split()))
    except Exception as e:
        last = traceback.extract_tb(e.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return Outcome(case.name, case.op, "crash", f"{type(e).__name__} at {where}: {e}")
    ops = [op for engine in rep.engines for op in schedule_ops(engine.data.schedule)]
    launches = sum(op["op"] == "launch" for op in ops)
    host = tuple(op["function"] for op in ops if op["op"] == "host_call")
    numeric = sorted(case.ops - set(WITHOUT_KERNEL))
    if not launches and numeric and not _passes_through(case):
        return Outcome(case.name, case.op, "idle", f"no kernel computes {', '.join(numeric)}", launches, host)
    return Outcome(case.name, case.op, "pass", "", launches, host)


def _passes_through(case: Case) -> bool:
    """Whether there is nothing to compute: every output is empty, is text, or holds the bytes of an input, as the sum
    of one operand does."""
    for inputs, outputs in case.data:
        if any(v is None or isinstance(v, list) for v in (*inputs, *outputs)):
            return False
        given, made = ([np.asarray(v) for v in values] for values in (inputs, outputs))
        held = {v.tobytes() for v in given}
        if given and all(v.dtype.kind in "OUST" for v in given):
            continue
        if not all(o.size == 0 or o.tobytes() in held for o in made):
            return False
    return True


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
    """Run cases in `processes` forked processes. One that dies gives its case the verdict crash and is replaced; so is
    one whose case crashed, since a GPU's context is of no more use after a fault."""
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
            if found[name].verdict in BROKEN:
                process.join()
                del workers[pipe]
                if waiting:
                    start()
                continue
            give(pipe, process)
    return [found[n] for n in names]


def _serve(pipe: Connection, options: dict[str, Any]) -> None:
    while (name := pipe.recv()) is not None:
        outcome = attempt(cases()[name], **options)
        pipe.send(outcome)
        if outcome.verdict in BROKEN:
            return
