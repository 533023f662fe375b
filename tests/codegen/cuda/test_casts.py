# SPDX-License-Identifier: Apache-2.0
"""Casts to 8-bit floats on CUDA, emulated, give the reference's bytes; and NVRTC compiles them."""

import numpy as np
import pytest

from tcc.codegen.cuda.compile import compile_cuda
from tcc.codegen.template import candidates, load_templates
from tcc.ir import graph
from tcc.ir.targets import target
from tcc.ir.types import F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F16, F32, I32, TensorType
from tests.codegen.cuda import emulator
from tests.codegen.cuda.problems import buffer
from tests.codegen.irregular import lowered, operands

SM_80 = target("sm_80")
TYPES = (F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ)


def case(source, to, saturate):
    rng = np.random.default_rng(3)
    edges = [0, 240, 247, 248, 249, 448, 463, 464, 465, 57344, 61439, 61440, 61441, 65504]
    x = np.concatenate([edges, np.negative(edges), rng.standard_normal(70) * 300]).astype(source.numpy)
    if source.is_float:
        x = np.concatenate([x, np.array([np.inf, -np.inf, np.nan], source.numpy)])
    (v,) = operands([TensorType(x.shape, source)])
    return lowered(graph.Cast(v, to=to, saturate=saturate), [x], f"{source}_{to}_{saturate}")


@pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize("to", TYPES, ids=str)
@pytest.mark.parametrize("source", [F32, F16, I32], ids=str)
def test_casts_give_the_bytes_of_the_reference(source, to, saturate):
    made = case(source, to, saturate)
    load_templates("cuda")
    for t, why in candidates(made.problem, SM_80):
        if why is None:
            emitted = t.emit(made.problem, t.default(made.problem, SM_80), SM_80)
            ins = [buffer(a, x) for a, x in zip(made.problem.arg_types, made.arrays, strict=True)]
            outs = [buffer(a) for a in made.problem.result_types]
            emulator.run(emitted, [*ins, *outs])
            got, want = outs[0].view.astype(np.float32), made.expected[0].astype(np.float32)
            np.testing.assert_array_equal(got, want, err_msg=t.name)


@pytest.mark.parametrize("to", TYPES, ids=str)
def test_sources_compile(to):
    made = case(F32, to, False)
    for t, why in candidates(made.problem, SM_80):
        if why is None:
            built = compile_cuda(t.emit(made.problem, t.default(made.problem, SM_80), SM_80).source, "sm_80")
            assert not built.warnings, (t.name, built.warnings)
