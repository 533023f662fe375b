# SPDX-License-Identifier: Apache-2.0
"""An import that goes on behind errors, to tell all that is wrong with a model in one report.

It runs only where the ordinary import has failed, and its module is thrown away. A node that fails leaves
placeholders: arguments of no block, of the types that ONNX's inference or the model's value_info give them, or
`Missing` where neither says. What reads a `Missing` value is looked at without its operands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import shape_inference

from tcc.compiler.frontend.binding import declared_dims
from tcc.compiler.frontend.importer import GraphImporter, Scope
from tcc.compiler.frontend.model import domain_of
from tcc.compiler.frontend.problems import Problem, again, problem_of
from tcc.compiler.frontend.survey import Survey, captured, in_order, node_name, subgraphs
from tcc.compiler.frontend.tensors import element_type
from tcc.errors import InputError, TccError
from tcc.ir.core import Block, Value
from tcc.ir.types import F32, SequenceType, TensorType

_INFERRED_BYTES = 256 << 20
"""ONNX's inference copies the model, so larger ones go without."""


class Missing(Value):
    """The value of a name that an error left undefined."""

    def __init__(self) -> None:
        super().__init__(SequenceType(TensorType((), F32)))


class Told(InputError):
    """A subgraph's errors, which are in the report already."""


class CollectingImporter(GraphImporter):
    """Adds a `Problem` for every node that cannot be imported, and goes on."""

    def __init__(self, problems: list[Problem], *args: Any) -> None:
        super().__init__(*args)
        self.problems = problems
        self._types = self._declared()

    def graph(self, proto: onnx.GraphProto, scope: Scope) -> list[Value]:
        before = len(self.problems)
        if scope.parent is None:
            held = scope.names()  # an input that tcc does not take is told of already
            scope.values.update((i.name, Missing()) for i in proto.input if i.name not in held)
        out = super().graph(proto, scope)
        if scope.parent is not None and (len(self.problems) > before or any(isinstance(v, Missing) for v in out)):
            raise Told("a graph inside the node cannot be imported")
        return out

    def attempt(self, proto: onnx.GraphProto) -> list[Value] | InputError:
        before = len(self.problems)
        out = super().attempt(proto)
        if isinstance(out, InputError):
            if not all(p.shapes for p in self.problems[before:]):
                raise out
            del self.problems[before:]
        return out

    def _nodes(self, nodes: Sequence[onnx.NodeProto], defined: set[str], what: str) -> None:
        wrong: dict[int, str] = {}
        for index, node in in_order(nodes, defined, what, wrong.setdefault):
            if index in wrong:
                self._told(wrong[index])
            self._node(node, index)

    def _told(self, text: str) -> None:
        self.problems.append(Problem(text))

    def _output(self, scope: Scope, name: str) -> Value:
        try:
            value = self._find(scope, name)
        except TccError as e:
            self.problems.append(problem_of(e))
            return Missing()
        if value is None:
            self._told(f'the graph\'s output "{name}" is not produced by any node')
            return Missing()
        return value

    def _find(self, scope: Scope, name: str) -> Value | None:
        """The value of a name, None if nothing defines it; a damaged initialiser is an error once."""
        try:
            return scope.find(name)
        except KeyError:
            return None
        except TccError:
            holder: Scope | None = scope
            while holder is not None:
                if holder.pending.pop(name, None) is not None:
                    holder.values[name] = Missing()
                holder = holder.parent
            raise

    def _operands(self, node: onnx.NodeProto) -> list[Value | None]:
        return [(self._find(self.scope, i) or Missing()) if i else None for i in node.input]

    def _node(self, node: onnx.NodeProto, index: int) -> None:
        name = self.scope.prefix + node_name(node, index)
        values: dict[str, Value] = {}
        with self.builder.at(name):
            open_dims = False
            try:
                operands = self._operands(node)
                wanted = sorted({c for g in subgraphs(node) for c in captured(g)})
                outer = [self._find(self.scope, c) for c in wanted]
                if any(isinstance(v, Missing) or (v is None and i < len(outer)) for i, v in enumerate(outer)) or any(
                    isinstance(v, Missing) for v in operands
                ):
                    self._unread(node, name)
                else:
                    known = [v.type for v in (*operands, *outer) if v is not None]
                    open_dims = any(isinstance(t, TensorType) and not t.is_static for t in known)
                    values = self._results(node, name)
            except Told:
                pass
            except TccError as e:
                text = str(e) if f'"{name}' in str(e) else f'node "{name}" ({node.op_type}): {e}'
                self.problems.append(problem_of(again(e, text), open_dims))
        for output in node.output:
            if output and (output in values or output not in self.scope.values):
                self._define(output, values[output] if output in values else self._placeholder(output))

    def _unread(self, node: onnx.NodeProto, name: str) -> None:
        """What is wrong with a node whatever its operands are: an unknown operator, attributes of a wrong type."""
        survey = Survey(self.functions)
        survey.node(node, name, self.scope.opsets)
        for unknown in survey.found:
            self._told(f'node "{unknown.node}" ({unknown.op}): {_no_import(unknown.op, unknown.domain, unknown.opset)}')
        domain = domain_of(node.domain)
        opset = self.scope.opsets.get(domain)
        if not survey.found and opset is not None:
            try:
                self._check_attributes(node, opset, self._attributes(node))
            except InputError as e:
                self._told(f'node "{name}" ({node.op_type}): {e}')

    def _placeholder(self, name: str) -> Value:
        t = self._types.get(name)
        return Missing() if t is None else Block([t]).args[0]

    def _declared(self) -> Mapping[str, TensorType]:
        """Types of the main graph's values, as far as the model or ONNX's inference gives them."""
        proto = self.model.proto
        if proto.ByteSize() <= _INFERRED_BYTES:
            try:
                proto = shape_inference.infer_shapes(proto, data_prop=True)
            except Exception:  # a model that is wrong in ways the inference does not expect: its own value_info is left
                proto = self.model.proto
        out: dict[str, TensorType] = {}
        for info in (*proto.graph.value_info, *proto.graph.output):
            dims = declared_dims(info) if info.type.HasField("tensor_type") else None
            if dims is None:
                continue
            shape = tuple(
                d if isinstance(d, int) else self.names.of_param(d) if d else self.names.fresh(info.name) for d in dims
            )
            try:
                out[info.name] = TensorType(shape, element_type(info.type.tensor_type.elem_type, info.name))
            except InputError:
                continue
        return out


def _no_import(op: str, domain: str, opset: int | None) -> str:
    if opset is None:
        return f"the domain {domain or 'ai.onnx'} has no opset in the model"
    return f"tcc has no import for {op} of {domain or 'ai.onnx'}, opset {opset}"
