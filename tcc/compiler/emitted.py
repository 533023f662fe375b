# SPDX-License-Identifier: Apache-2.0
"""The source of scheduled kernels, made once a kernel however often it is asked for."""

from __future__ import annotations

from collections import OrderedDict

from tcc.codegen.template import TEMPLATES, Emitted, Packing, Template, load_templates
from tcc.ir.declare import IRError
from tcc.ir.kernel import Func
from tcc.ir.kernel.problem import kernel_key
from tcc.ir.targets import Target

_CACHE: OrderedDict[tuple[str, str], Emitted] = OrderedDict()
_LIMIT = 4096


def emit(func: Func, target: Target) -> Emitted:
    """What the kernel's template emits for its config."""
    key = (kernel_key(func), target.name)
    if key not in _CACHE:
        _CACHE[key] = template_of(func, target).emit(func, func.config, target)
        if len(_CACHE) > _LIMIT:
            _CACHE.popitem(last=False)
    return _CACHE[key]


def packings(func: Func, target: Target) -> list[Packing]:
    """The packings of constant operands that the kernel's template asks for."""
    return list(template_of(func, target).pack(func, func.config, target))


def template_of(func: Func, target: Target) -> Template:
    """The template that a scheduled kernel names; IRError if there is none."""
    load_templates(target.kind)
    found = TEMPLATES.get(func.template)
    if found is None or found.kind != target.kind:
        raise IRError(
            f"@{func.sym_name} is scheduled with {func.template or 'no template'}, which {target.name} does not have"
        )
    return found
