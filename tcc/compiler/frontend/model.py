# SPDX-License-Identifier: Apache-2.0
"""Reading an ONNX model file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from tcc.errors import InputError

OLDEST_OPSET = 7
NEWEST_OPSET = 28
"""Default-domain opsets that the frontend knows."""


@dataclass(frozen=True)
class Model:
    """A parsed model, the file it came from (None for bytes or a proto) and the folder of its external data."""

    proto: onnx.ModelProto
    path: Path | None
    name: str

    @property
    def folder(self) -> Path | None:
        return None if self.path is None else self.path.parent

    @property
    def opsets(self) -> dict[str, int]:
        """Opset version by domain; "" is ai.onnx."""
        return opsets_of(self.proto.opset_import)


def domain_of(text: str) -> str:
    """The domain as a key: ai.onnx is ""."""
    return "" if text == "ai.onnx" else text


def opsets_of(imports: object) -> dict[str, int]:
    """Version by domain of a list of OperatorSetIdProto."""
    return {domain_of(o.domain): int(o.version) for o in imports}  # type: ignore[attr-defined]


Source = str | os.PathLike[str] | bytes | onnx.ModelProto


def read_model(source: Source) -> Model:
    """The model of a path, bytes or proto; InputError if it is no usable ONNX model."""
    if isinstance(source, onnx.ModelProto):
        return _checked(Model(source, None, source.graph.name or "model"))
    if isinstance(source, bytes):
        return _checked(Model(_parse(source, "the given bytes"), None, "model"))
    path = Path(source)
    try:
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


def _checked(model: Model) -> Model:
    what = str(model.path or "the model")
    proto = model.proto
    if not proto.HasField("graph") or not proto.ir_version or not proto.opset_import:
        raise InputError(f"{what} is no ONNX model: it has no graph, IR version or opset")
    opset = model.opsets.get("")
    if opset is not None and not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise InputError(
            f"{what} is of opset {opset} and tcc reads {OLDEST_OPSET} to {NEWEST_OPSET}; "
            "convert it with onnx.version_converter"
        )
    if not proto.graph.output:
        raise InputError(f"{what} has no outputs: it is no ONNX model, or a truncated one")
    return model
