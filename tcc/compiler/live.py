# SPDX-License-Identifier: Apache-2.0
"""Engines for this process, without a file between: the weights go to a block that engines of one model share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tcc.compiler.emit_engine import native_files
from tcc.compiler.engine_check import check_content
from tcc.compiler.engine_writer import EngineContent, manifest_of, write
from tcc.ir.targets import Target
from tcc.runtime.engine import Engine
from tcc.runtime.weights import LiveData, WeightBlock, padded

_ROOM = 4
"""A block has room for so many times the weights of its first engine, and some more: specialisations of a model pack
some weights in other ways."""
_MORE = 16 << 20


class LiveEngines:
    """Makes engines that share their weights where they are packed alike."""

    def __init__(self) -> None:
        self._block: WeightBlock | None = None

    def engine(self, content: EngineContent, target: Target, alone: bool = False) -> Engine:
        """The engine of some content. `alone`: no other engine will share its weights."""
        check_content(content)
        offsets = None if self._block is None else self._block.place(content.weights)
        if self._block is None or offsets is None:
            need = sum(padded(w.nbytes) for w in content.weights)
            self._block = WeightBlock(need if alone else _ROOM * need + _MORE)
            offsets = self._block.place(content.weights)
            assert offsets is not None
        block = self._block
        placed = [block.view(o, w.dtype, w.shape) for o, w in zip(offsets, content.weights, strict=True)]
        content.weights = placed  # the file, if one is ever written, is written from the block
        rows = [_moved(row, offsets) for row in content.buffers]
        files = dict(content.files)
        manifest: dict[str, Any] = {**manifest_of(content), "buffers": rows, "files": {}}
        if content.native is not None and rows != content.buffers:
            files |= native_files(rows, content, target)

        def save(path: Path) -> None:
            write(content, path)

        return Engine(LiveData(json.loads(json.dumps(manifest)), files, block, save))


def _moved(row: dict[str, Any], offsets: list[int]) -> dict[str, Any]:
    return {**row, "offset": offsets[int(row["name"][1:])]} if row["space"] == "weight" else row
