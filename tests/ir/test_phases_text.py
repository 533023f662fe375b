# SPDX-License-Identifier: Apache-2.0
"""A whole model's text at the end of every phase: it reads back, verifies, and xDSL reads its generic form."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest

import tcc.compiler.phases  # noqa: F401  registers the passes that need the code generators
from tcc.compiler.driver import context_for, import_model
from tcc.compiler.options import Options
from tcc.compiler.phases.pipelines import pipeline
from tcc.ir.parser import parse
from tcc.ir.printer import print_op
from tcc.ir.verifier import verify
from tcc.passes.base import PassContext
from tcc.passes.manager import PassManager
from tests.ir.mlir_shape import count, shape, shape_of_xdsl

MODEL = Path(os.path.dirname(onnx.__file__)) / "backend/test/data/light/light_squeezenet.onnx"


@pytest.mark.parametrize("level", [0, 1])
def test_text_of_every_phase(level: int):
    options = Options(target="x86-64-v3", opt_level=level)
    module = import_model(MODEL, options, PassContext())
    manager = PassManager(verify_each=True, reproduce=False)
    sizes = []
    for phase in ("import", "graph", "fuse", "kernel", "schedule"):
        manager.run(module, pipeline(phase, level, "f32"), context_for(module, options))
        text = print_op(module)
        again = parse(text)
        verify(again)
        assert print_op(again) == text
        generic = print_op(module, generic=True)
        assert print_op(parse(generic)) == text
        ours = shape(module)
        assert shape_of_xdsl(generic) == ours
        sizes.append(count(ours))
    assert min(sizes) > 50
