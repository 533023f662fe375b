# SPDX-License-Identifier: Apache-2.0
"""Writing files whole: under another name first, then renamed, so readers see all of a file or nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_file(path: Path, data: bytes | str | Callable[[IO[bytes]], object]) -> None:
    """Write bytes, text as UTF-8, or what a function writes to the open file; OSError if that cannot be done.

    What is no file, as /dev/null and named pipes are not, is written to and stays what it is.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with open(path, "wb") as f:
            _fill(f, data)
        return
    fd, temp = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as f:
            _fill(f, data)
        os.chmod(temp, 0o666 & ~_umask())  # mkstemp makes files that only their owner may read
        os.replace(temp, path)
    except BaseException:
        os.unlink(temp)
        raise


def _fill(f: IO[bytes], data: bytes | str | Callable[[IO[bytes]], object]) -> None:
    if callable(data):
        data(f)
    else:
        f.write(data.encode("utf-8") if isinstance(data, str) else data)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
