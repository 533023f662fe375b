# SPDX-License-Identifier: Apache-2.0
"""Reading an ONNX model file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import version_converter

from tcc.errors import InputError

OLDEST_OPSET = 7
NEWEST_OPSET = 28
"""Default-domain opsets that the frontend knows."""
MOST_NESTED = 40
"""Levels of graphs inside graphs; a file can hold about 33, as protobuf limits how deep messages nest."""
MOST_BYTES = (1 << 31) - 1
"""The size of a protobuf message."""


@dataclass(frozen=True)
class Model:
    """A parsed model, the file it came from (None for bytes or a proto) and the folder of its external data."""

    proto: onnx.ModelProto
    path: Path | None
    name: str
    converted_from: int | None = None
    """The opset that the model had before it was brought to the first one that the frontend knows."""

    @property
    def folder(self) -> Path | None:
        return None if self.path is None else self.path.parent

    @property
    def opsets(self) -> dict[str, int]:
        """Opset version by domain; "" is ai.onnx. See `model_opsets`."""
        return model_opsets(self.proto)


def domain_of(text: str) -> str:
    """The domain as a key: ai.onnx is ""."""
    return "" if text == "ai.onnx" else text


def model_opsets(proto: onnx.ModelProto) -> dict[str, int]:
    """Opset version by domain of a model. ONNX Runtime's own tools write operators of com.microsoft without importing
    the domain; it has one version."""
    return {"com.microsoft": 1, **opsets_of(proto.opset_import)}


def opsets_of(imports: object) -> dict[str, int]:
    """Version by domain of a list of OperatorSetIdProto; InputError if a version is out of all range."""
    out: dict[str, int] = {}
    for o in imports:  # type: ignore[attr-defined]
        if not 0 < o.version < 1 << 31:
            raise InputError(f"the model imports opset {o.version} of {o.domain or 'ai.onnx'}; it is damaged")
        if out.setdefault(domain_of(o.domain), int(o.version)) != o.version:
            both = f"{out[domain_of(o.domain)]} and {o.version}"
            raise InputError(f"the model imports two opsets of {o.domain or 'ai.onnx'}, {both}; keep one")
    return out


Source = str | os.PathLike[str] | bytes | onnx.ModelProto | Model


def read_model(source: Source) -> Model:
    """The model of a path, bytes or proto (or itself); InputError if it is no usable ONNX model."""
    if isinstance(source, Model):
        return source
    if isinstance(source, onnx.ModelProto):
        return _checked(Model(source, None, source.graph.name or "model"))
    if isinstance(source, bytes):
        return _checked(Model(_parse(source, "the given bytes"), None, "model"))
    path = Path(source)
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(
                f"{path} has {size} bytes, and a protobuf message holds up to 2 GiB; "
                "save the model with its weights as external data"
            )
        data = path.read_bytes()
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}") from None
    return _checked(Model(_parse(data, str(path)), path.absolute(), path.stem))


def _parse(data: bytes, what: str) -> onnx.ModelProto:
    if not data:
        raise InputError(f"{what} is empty; it is no ONNX model")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise InputError(f"{what} is no ONNX model, or a truncated one: it does not parse") from None
    return model


def _converted(model: Model, opset: int) -> Model:
    """A model of an opset before the first that the frontend knows, brought to it by onnx."""
    try:
        proto = version_converter.convert_version(model.proto, OLDEST_OPSET)
    except (RuntimeError, ValueError, IndexError, onnx.checker.ValidationError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise InputError(
            f"{model.path or 'the model'} is of opset {opset}, tcc reads {OLDEST_OPSET} to {NEWEST_OPSET}, "
            f"and onnx.version_converter cannot convert it ({reason}); export it again with a newer opset"
        ) from None
    return replace(model, proto=proto, converted_from=opset)


def _check_texts(texts: Iterable[object], what: str) -> None:
    """InputError if a name is no UTF-8, which protobuf then gives as bytes."""
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"{what} has the name {text!r}, which is no UTF-8; it is no ONNX model, or a damaged one")


def _check_nodes(nodes: Iterable[onnx.NodeProto], what: str, depth: int = 0) -> None:
    for n in nodes:
        _check_texts([n.op_type, n.domain, n.overload, n.name, *n.input, *n.output], what)
        for a in n.attribute:
            _check_texts([a.name, a.ref_attr_name], what)
            for g in [a.g, *a.graphs] if a.HasField("g") or a.graphs else ():
                _check_names(g, what, depth + 1)


def _check_names(graph: onnx.GraphProto, what: str, depth: int = 0) -> None:
    if depth > MOST_NESTED:
        raise InputError(f"{what} has graphs inside graphs more than {MOST_NESTED} deep")
    _check_texts([t.name for t in graph.initializer], what)
    _check_texts([s.values.name for s in graph.sparse_initializer], what)
    for info in (*graph.input, *graph.output):
        _check_texts([info.name, *(d.dim_param for d in info.type.tensor_type.shape.dim)], what)
    _check_nodes(graph.node, what, depth)


def _checked(model: Model) -> Model:
    what = str(model.path or "the model")
    proto = model.proto
    if not proto.HasField("graph") or not proto.ir_version or not proto.opset_import:
        raise InputError(f"{what} is no ONNX model: it has no graph, IR version or opset")
    _check_names(proto.graph, what)
    for f in proto.functions:
        texts = [f.name, f.domain, f.overload, *f.input, *f.output, *f.attribute]
        _check_texts(texts + [o.domain for o in f.opset_import], what)
        _check_nodes(f.node, what)
    _check_texts([o.domain for o in proto.opset_import], what)
    opset = model.opsets.get("")
    if opset is not None and not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        if opset > NEWEST_OPSET:
            raise InputError(
                f"{what} is of opset {opset} and tcc reads up to {NEWEST_OPSET}; convert it with onnx.version_converter"
            )
        return _checked(_converted(model, opset))
    if not proto.graph.output:
        raise InputError(f"{what} has no outputs: it is no ONNX model, or a truncated one")
    for kind, infos in (("inputs", proto.graph.input), ("outputs", proto.graph.output)):
        names = [i.name for i in infos]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise InputError(f'{what} has two {kind} named "{twice}"; give each a name of its own')
    return model
