# SPDX-License-Identifier: Apache-2.0
"""Every operator of the default domain has its function, under its name, with its inputs and attributes."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import onnx.defs
import pytest

from tcc import reference
from tcc.reference import function_name

# Control flow lives in the IR, Constant is data, the last two are deprecated.
ABSENT = {"If", "Loop", "Scan", "SequenceMap", "Constant", "Scatter", "Upsample"}
# Resolved by the caller: paddings and output shapes into pads, and statistics are never kept in less than float32.
RESOLVED = {"auto_pad", "output_shape", "stash_type"}


def newest() -> dict[str, onnx.defs.OpSchema]:
    result: dict[str, onnx.defs.OpSchema] = {}
    for s in onnx.defs.get_all_schemas_with_history():
        if s.domain == "" and (s.name not in result or s.since_version > result[s.name].since_version):
            result[s.name] = s
    return result


SCHEMAS = newest()


@pytest.mark.parametrize("op", sorted(set(SCHEMAS) - ABSENT))
def test_signature(op: str) -> None:
    schema = SCHEMAS[op]
    parameters = inspect.signature(getattr(reference, function_name(op))).parameters.values()
    named = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        assert not positional
    else:
        assert len(positional) == len(schema.inputs)
        for p, i in zip(positional, schema.inputs, strict=True):
            if i.option == onnx.defs.OpSchema.FormalParameterOption.Optional:
                assert p.default is None, f"{i.name} is optional"
    assert set(schema.attributes) - RESOLVED <= named
    for name, a in schema.attributes.items():
        if a.required:
            parameter = next(p for p in parameters if p.name == name)
            assert parameter.default is inspect.Parameter.empty or op == "Optional"


@pytest.mark.parametrize("op", sorted(set(SCHEMAS) - ABSENT))
def test_defaults_are_those_of_the_schema(op: str) -> None:
    parameters = inspect.signature(getattr(reference, function_name(op))).parameters
    for name, a in SCHEMAS[op].attributes.items():
        kind = a.default_value.type
        if (
            name in RESOLVED
            or not a.default_value.name
            or name in ("dtype", "output_datatype", "output_dtype", "precision")
        ):
            continue
        value = onnx.helper.get_attribute_value(a.default_value)
        if isinstance(value, bytes):
            value = value.decode()
        default = parameters[name].default
        if kind == onnx.AttributeProto.FLOAT:
            assert default == pytest.approx(value, rel=1e-6), name
        elif kind == onnx.AttributeProto.INTS:
            assert list(default) == list(value), name
        elif kind != onnx.AttributeProto.STRINGS:
            assert default == value, name


def test_exports_are_documented_and_listed() -> None:
    for name in reference.__all__:
        assert (getattr(reference, name).__doc__ or "").strip(), name
    assert reference.__all__ == sorted(reference.__all__)


def test_it_is_a_leaf() -> None:
    folder = Path(inspect.getfile(reference)).parent
    allowed = {"numpy", "ml_dtypes", "tcc", "__future__"}
    import sys

    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for n in names:
                top = n.split(".")[0]
                assert top in allowed or top in sys.stdlib_module_names, f"{path.name} imports {n}"
                assert top != "tcc" or n.startswith("tcc.reference"), f"{path.name} imports {n}"
