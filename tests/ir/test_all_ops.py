# SPDX-License-Identifier: Apache-2.0
"""Every registered op, with every field used: its text reads back, in tcc's own form and in MLIR's generic one."""

from __future__ import annotations

import pytest

from tcc.ir.attributes import Domain, IndexMap, Resource
from tcc.ir.core import Block, Op, Region
from tcc.ir.declare import OPS, Attr
from tcc.ir.dialects import load_all
from tcc.ir.expr import Sym
from tcc.ir.module import module as new_module
from tcc.ir.parser import parse
from tcc.ir.printer import print_op
from tcc.ir.types import F16, F32, I64, ScalarType, TensorType
from tests.ir.mlir_shape import shape, shape_of_xdsl

load_all()
N = Sym("n")
ARGS = {"x": TensorType((1, N, 3), F32), "y": TensorType((4,), F16, (2,), 16), "s": ScalarType(I64)}
MAP = IndexMap((N * 2, 0), float("-inf"), (N % 3,))
CANDIDATES = [
    True, 7, 2.5, "text \"é\" \\ \n", (1, -2), (1.5, 1e-30), ("a", ""), (True, False), F16, TensorType((2, N), F32),
    (ScalarType(F32), TensorType((), F32)), ScalarType(F16),
    Domain((("i", 4), ("j", N + 1)), (("k", 8),)), MAP, (MAP, MAP),
    Resource("0123456789abcdef" * 4), {"a b": 1, "c": (1.0, {"d": None})}, (N + 1, 4),
]  # fmt: skip


def sample(attr: Attr) -> object:
    """A value of the attribute's kind, another than its default if there is one."""
    words = attr.kind.name.split(" | ")
    fitting = [v for v in (*CANDIDATES, *words) if attr.kind.accepts(v)]
    assert fitting, f"no sample of the kind {attr.kind.name}: add one"
    return next((v for v in fitting if attr.required or v != attr.default), fitting[0])


def body() -> Region:
    block = Block([ARGS["x"], ARGS["s"]], ["in", None])
    block.append(OPS["graph.yield"].create([block.args[0]], (1,), [], {}, []))
    return Region(block)


def instance(name: str, full: bool) -> Block:
    """A block with one op of that name: every optional thing present, or none."""
    cls = OPS[name]
    block = Block(list(ARGS.values()), list(ARGS))
    counts = tuple({"one": 1, "optional": int(full), "variadic": 2 * full}[f.kind] for f in cls.spec.operands)
    operands = [block.args[i % 3] for i in range(sum(counts))]
    attrs = {k: sample(a) for k, a in cls.spec.attrs.items() if full or a.required}
    regions = [body() for r in cls.spec.regions for _ in range(2 if r.variadic and full else 1)]
    results = [ARGS["x"] for r in cls.spec.results for _ in range(2 * full if r.variadic else 1)]
    loc = ("Conv_1", 'odd "name"\\') if full else ()
    checked = cls.spec.check_attrs(name, attrs)
    block.append(cls.create(operands, counts, regions, checked, results, loc))
    return block


def wrapped(block: Block) -> Op:
    """A module with a function that holds the block, not verified."""
    func = OPS["graph.func"].create([], (), [Region(block)], {"sym_name": "f", "arg_names": (), "result_names": ()}, [])
    module = new_module(target="sm_86", options={"opt_level": 3})
    module.block.append(func)
    return module


@pytest.mark.parametrize("full", [False, True], ids=["bare", "full"])
@pytest.mark.parametrize("name", sorted(OPS))
def test_text_reads_back(name: str, full: bool):
    module = wrapped(instance(name, full))
    text = print_op(module)
    again = parse(text)
    assert print_op(again) == text
    ours, theirs = (list(m.walk())[2] for m in (module, again))
    assert theirs.name == name
    assert list(theirs.attrs.items()) == list(ours.attrs.items())
    assert theirs.segments == ours.segments
    assert theirs.loc == ours.loc
    assert [r.type for r in theirs.results] == [r.type for r in ours.results]
    generic = print_op(module, generic=True)
    assert print_op(parse(generic)) == text
    assert print_op(parse(generic), generic=True) == generic


@pytest.mark.parametrize("name", sorted(OPS))
def test_generic_form_is_mlir(name: str):
    module = wrapped(instance(name, True))
    assert shape_of_xdsl(print_op(module, generic=True)) == shape(module)
