# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers on the CPU."""

import numpy as np
import pytest

from tcc.codegen.template import TEMPLATES, load_templates, rows_of
from tcc.ir.attributes import Domain
from tcc.ir.declare import IRError
from tcc.ir.kernel.evaluate import evaluate
from tcc.ir.types import F64, I8
from tcc.ir.verifier import verify
from tests.codegen.llvm.harness import V2, V3, V4, check, widest
from tests.codegen.recurrences import DYNAMIC, LAYERS, Layer, name_of

NAIVE, BLOCKS = "llvm.naive", "llvm.recurrence"
LEVELS = [t for t in (V2, V3, V4) if t.vector_bytes <= widest().vector_bytes]
load_templates("cpu")


@pytest.mark.parametrize("layer", LAYERS, ids=name_of)
def test_the_oracle_is_what_the_graph_op_computes(layer: Layer, rng: np.random.Generator) -> None:
    values, order = layer.values(rng), layer.made()[1]
    named = {n: v.astype(np.float64) if v.dtype.kind == "f" else v for n, v in values.items()}
    op = layer.op()
    fields = {"lstm": ("x", "r", "h", "lengths", "c", "p"), "gru": ("x", "r", "h", "lengths", "rb")}
    names = (*fields.get(layer.kind, ("x", "r", "h", "lengths")), "scale")
    wanted = op.evaluate(*(named.get(n) for n in names))
    for e, want in zip(evaluate(layer.func(), [values[n] for n in order]), wanted, strict=True):
        got = np.zeros(want.shape)
        got[e.index] = e.value
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
        assert len(e.value) == want.size
        # A number in the middle between two quanta may become either.
        most = 0.1 if str(layer.dtype) == "f16" else 0.02 if layer.quantized else 1e-3
        assert not e.allowance.size or e.allowance.max() < most


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"gates": (3,)}, r"does not fit h units and the gates \(3,\)"),
        ({"gates": (2, 2)}, "1 regions|one entry a stage"),
        ({"domain": Domain((("t", 5), ("b", 2), ("h", 19)), (("g", 4), ("k", 18)))}, "does not fit h units"),
        ({"domain": Domain((("t", 5), ("b", 2), ("h", 19)), (("k", 19), ("g", 4)))}, "must be t, b, h | g, k"),
        ({"acc": F64}, "start yields"),
    ],
)
def test_anchors_that_do_not_fit(attrs: dict[str, object], message: str) -> None:
    func = Layer("lstm", 5, 2, 19).func()
    func.anchor.attrs.update(attrs)
    with pytest.raises(IRError, match=message):
        verify(func)


@pytest.mark.parametrize("layer", [*LAYERS, *DYNAMIC], ids=name_of)
def test_naive(layer: Layer, rng: np.random.Generator) -> None:
    check(layer.func(), layer.arrays(rng), NAIVE)


@pytest.mark.parametrize("layer", [*LAYERS, *DYNAMIC], ids=name_of)
def test_blocks(layer: Layer, rng: np.random.Generator) -> None:
    func, arrays = layer.func(), layer.arrays(rng)
    check(func, arrays, BLOCKS)
    columns, _ = TEMPLATES[BLOCKS].legal_columns(func, widest())
    some = rows_of(columns)
    check(func, arrays, BLOCKS, some[-1], workers=3)


CONFIGS = (LAYERS[2], LAYERS[7], LAYERS[-5])


@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("layer", CONFIGS, ids=name_of)
def test_some_configs(layer: Layer, t: object, rng: np.random.Generator) -> None:
    func, arrays = layer.func(), layer.arrays(rng)
    columns, dropped = TEMPLATES[BLOCKS].legal_columns(func, t)
    assert dropped
    for config in rows_of(columns)[:: 11 if t is V4 else 17]:
        check(func, arrays, BLOCKS, config, t)


@pytest.mark.slow
@pytest.mark.parametrize("t", LEVELS, ids=lambda t: t.name)
@pytest.mark.parametrize("layer", CONFIGS, ids=name_of)
def test_every_config(layer: Layer, t: object, rng: np.random.Generator) -> None:
    func, arrays = layer.func(), layer.arrays(rng)
    for config in rows_of(TEMPLATES[BLOCKS].legal_columns(func, t)[0]):
        check(func, arrays, BLOCKS, config, t)


def test_quantized_layers_that_do_not_fit() -> None:
    layer = Layer("lstm", 5, 2, 19, quantized=I8)
    func = layer.func()
    func.anchor.attrs["quantized"] = False
    with pytest.raises(IRError, match="stage 0 takes"):
        verify(func)
    func = Layer("lstm", 5, 2, 19).func()
    func.anchor.attrs["quantized"] = True
    with pytest.raises(IRError, match="weights of i8 or i16"):
        verify(func)


def test_few_sequences_are_cut_by_units_and_many_are_not() -> None:
    one, many = Layer("lstm", 50, 1, 1024).func(), Layer("lstm", 50, 64, 1024).func()
    template = TEMPLATES[BLOCKS]
    config = template.default(one, widest())
    assert config["parts"] > 1 and config["rows"] == 1
    assert template.default(many, widest())["rows"] > 1
    launches = template.emit(one, config, widest()).launches
    assert [launch.waves for launch in launches] == [1, 50]
