# SPDX-License-Identifier: Apache-2.0
"""The source or assembly of an engine's kernels as one text: `--emit=cuda|ptx|llvm|asm`."""

from __future__ import annotations

from tcc.compiler.engine_writer import EngineContent
from tcc.compiler.targets import llvm_target
from tcc.errors import InputError
from tcc.ir.targets import Target


def source_text(content: EngineContent, kind: str, target: Target) -> str:
    """All kernels, each after a line that names it and its ONNX nodes. InputError if the target has no such text."""
    has = ("cuda", "ptx") if target.is_cuda else ("llvm", "asm")
    if kind not in has:
        raise InputError(f"--emit={kind} is not made for {target.name}; it has {', '.join(has)}")
    mark = "//" if target.is_cuda else ";"
    parts: list[str] = []
    seen: set[str] = set()
    for row in content.kernels.values():
        entry = row["files"]["source"]
        if entry in seen:
            continue
        seen.add(entry)
        text = _translate(content.files[entry].decode(), kind, target, str(row.get("arch", target.name)))
        parts.append(f"{mark} {row['entry']}: {row['template']} {row['config']} for {', '.join(row['loc'])}\n{text}")
    return "\n".join(parts)


def _translate(source: str, kind: str, target: Target, arch: str) -> str:
    if kind in ("cuda", "llvm"):
        return source
    if target.is_cuda:
        from tcc.codegen.cuda.compile import compile_cuda

        return compile_cuda(source, arch).ptx
    from tcc.codegen.llvm.compile import CompileError, compile_many

    (built,) = compile_many([("kernel", source)], llvm_target(target), emit="assembly")
    if isinstance(built, CompileError):
        raise built
    return built.content.decode()
