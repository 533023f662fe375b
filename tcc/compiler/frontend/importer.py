# SPDX-License-Identifier: Apache-2.0
"""From an ONNX model to a module of the graph dialect."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import onnx
from onnx import AttributeProto

from tcc.compiler.frontend.binding import DimNames, Shapes, bind_inputs, free_dims, how_to_bind
from tcc.compiler.frontend.builder import Builder
from tcc.compiler.frontend.functions import Functions, bound_attributes
from tcc.compiler.frontend.host import host_call, host_function
from tcc.compiler.frontend.model import Model, Source, domain_of, opsets_of, read_model
from tcc.compiler.frontend.node import Node
from tcc.compiler.frontend.problems import ImportFailure, NeedsValue, Problem, Unsupported, again, problem_of
from tcc.compiler.frontend.registry import handlers
from tcc.compiler.frontend.run_time import ComputedOperand
from tcc.compiler.frontend.sequence import StaticOptional, StaticSequence, host_values, hosted
from tcc.compiler.frontend.survey import check_calls, in_order, node_name
from tcc.compiler.frontend.tensors import Array, sparse_to_array, to_array
from tcc.errors import InputError, TccError
from tcc.ir import graph
from tcc.ir.core import Value
from tcc.ir.module import ModuleOp, module
from tcc.ir.rewriter import Decisions
from tcc.ir.types import OptionalType, SequenceType, Type


@dataclass
class Imported:
    """An imported model.

    `in_file`: sha256 of the constants that the model file holds, so dumps need not. `free`: inputs that still have
    free dims, with their dims as text. `deciding`: inputs whose given values decided a shape or an attribute.
    """

    module: ModuleOp
    path: Path | None
    in_file: frozenset[str] = frozenset()
    free: dict[str, tuple[str, ...]] = field(default_factory=dict[str, "tuple[str, ...]"])
    deciding: tuple[str, ...] = ()


@dataclass
class Scope:
    """The names visible at a place: values, and initialisers that nothing has used yet."""

    opsets: Mapping[str, int]
    parent: Scope | None = None
    prefix: str = ""
    attributes: Mapping[str, AttributeProto] | None = None
    """Inside a function: what attribute references stand for."""
    values: dict[str, Value] = field(default_factory=dict[str, Value])
    pending: dict[str, Callable[[], Value]] = field(default_factory=dict[str, "Callable[[], Value]"])

    def names(self) -> set[str]:
        """Every name that is visible."""
        own = set(self.values) | set(self.pending)
        return own if self.parent is None else own | self.parent.names()

    def find(self, name: str) -> Value:
        """The value of a name; KeyError if nothing defines it."""
        if name in self.values:
            return self.values[name]
        if name in self.pending:
            self.values[name] = self.pending.pop(name)()
            return self.values[name]
        if self.parent is None:
            raise KeyError(name)
        return self.parent.find(name)


def import_onnx(source: Source, shapes: Shapes | None = None, decisions: Decisions | None = None) -> ModuleOp:
    """The module of an ONNX model: one `graph.func` @main. See `load_onnx`."""
    return load_onnx(source, shapes, decisions).module


def load_onnx(
    source: Source,
    shapes: Shapes | None = None,
    decisions: Decisions | None = None,
    values: Mapping[str, Array] | None = None,
    replaced: Collection[str] = (),
) -> Imported:
    """A model (path, bytes or proto) imported with the free dims of inputs bound by `shapes` (input name → extents,
    None where a dim stays free). Opsets 7 to 28.

    `values`: contents of inputs that decide shapes or attributes; what is imported is right for these alone, and
    `Imported.deciding` says which were used. `replaced`: initialisers whose values a call gives.

    ImportFailure says what cannot be imported and why, all of it.
    """
    model = read_model(source)
    functions = Functions(model.proto)
    check_calls(model.proto, functions)
    asked = _Asked(model, functions, shapes, values or {}, replaced)
    try:
        return _load(asked, GraphImporter, Decisions() if decisions is None else decisions)
    except ImportFailure:
        raise
    except TccError as first:
        # What else is wrong takes an import that goes on behind errors; the one above has none of its allowances.
        from tcc.compiler.frontend.collect import CollectingImporter

        problems: list[Problem] = []
        try:
            _load(asked, partial(CollectingImporter, problems), Decisions(), problems)
        except TccError as last:
            problems.append(problem_of(last))
        problems = list(dict.fromkeys(problems))  # a body that is imported twice says the same twice
        if len(problems) < 2:
            problems = [problem_of(first, bool(problems) and problems[0].open)]
        raise _failure(problems, free_dims(model.proto, shapes)) from first


@dataclass(frozen=True)
class _Asked:
    """What an import is of, and for."""

    model: Model
    functions: Functions
    shapes: Shapes | None
    values: Mapping[str, Array]
    replaced: Collection[str]


def _load(
    asked: _Asked,
    importer_class: Callable[..., GraphImporter],
    decisions: Decisions,
    problems: list[Problem] | None = None,
) -> Imported:
    names, model = DimNames(), asked.model
    inputs = bind_inputs(model.proto, asked.shapes, names, problems, asked.replaced)
    main = graph.func("main", list(inputs.types.values()), list(inputs.types))
    result = module()
    result.block.append(main)
    importer = importer_class(model, asked.functions, Builder(main.block), names, decisions)
    deciding = importer.builder.deciding
    scope = Scope(model.opsets)
    optional = {i.name for i in model.proto.graph.input if i.type.HasField("optional_type")}
    for name, arg in zip(inputs.types, main.block.args, strict=True):
        scope.values[name] = importer.argument(arg, inputs.items.get(name), name in optional)
        deciding.argument(arg, name, asked.values.get(name))
    outputs = importer.graph(model.proto.graph, scope)
    if problems:
        return Imported(result, model.path)
    outputs = [hosted(importer, v) for v in outputs]
    graph.finish(main, outputs, [o.name for o in model.proto.graph.output])
    in_file = importer.builder.finish(result)
    if model.converted_from is not None:
        in_file = frozenset[str]()  # some may be made by the conversion
    return Imported(result, model.path, in_file, inputs.free, tuple(deciding.used))


def _failure(problems: Sequence[Problem], free: Mapping[str, Sequence[str]]) -> ImportFailure:
    """The report of problems; a sentence that says "bind" is about free dims, so the report says which, and how."""
    found: list[Problem] = []
    way_out = ""
    for p in problems:
        reason, advice, _ = p.text.partition("; bind")
        if free and (advice or "bound" in reason):
            way_out = how_to_bind(free)
            p = Problem(reason, p.inputs, True)
        found.append(p)
    return ImportFailure(found, way_out)


class GraphImporter:
    """Imports graphs, node by node, into the builder's block."""

    def __init__(
        self, model: Model, functions: Functions, builder: Builder, names: DimNames, decisions: Decisions
    ) -> None:
        self.model = model
        self.functions = functions
        self.builder = builder
        self.names = names
        self.decisions = decisions
        self.scope = Scope({})

    @contextmanager
    def _within(self, scope: Scope):
        before, self.scope = self.scope, scope
        try:
            yield scope
        finally:
            self.scope = before

    def argument(self, arg: Value, items: Sequence[Type] | None, optional: bool) -> Value:
        """What an input of the model stands for: a sequence bound to a length is resolved, and so is an optional."""
        t = arg.type
        if isinstance(t, OptionalType):
            return StaticOptional(None, t.element) if t.length == 0 else arg
        value = arg
        if isinstance(t, SequenceType) and items is not None:
            reason = "the tensors of an input sequence of known length are taken from it"
            with self.builder.at(arg.hint or ""):
                found = host_values(self, "sequence_items", [arg], items, reason) if items else ()
            value = StaticSequence(found, t.element)
        return StaticOptional(value) if optional else value

    def graph(self, proto: onnx.GraphProto, scope: Scope) -> list[Value]:
        """Import a graph whose inputs are in the scope; the values of its outputs."""
        for tensor in proto.initializer:
            # A later one of the same name wins, as in ONNX Runtime; without a name it cannot be read.
            if tensor.name:
                scope.pending[tensor.name] = self._initialiser(tensor)
        for sparse in proto.sparse_initializer:
            scope.pending[sparse.values.name] = lambda s=sparse: self.builder.initialiser(
                sparse_to_array(s, self.model.folder)
            )
        with self._within(scope):
            own = set(scope.values) | set(scope.pending)
            visible = scope.names()
            shadowed = {o for n in proto.node for o in n.output} & (visible - own)
            self._nodes(proto.node, visible - shadowed, "the graph")
            return [self._output(scope, o.name) for o in proto.output]

    def _nodes(self, nodes: Sequence[onnx.NodeProto], defined: set[str], what: str) -> None:
        for index, node in in_order(nodes, defined, what):
            self._node(node, index)

    def _output(self, scope: Scope, name: str) -> Value:
        try:
            return scope.find(name)
        except KeyError:
            raise Unsupported(f'the graph\'s output "{name}" is not produced by any node') from None

    def _initialiser(self, tensor: onnx.TensorProto) -> Callable[[], Value]:
        return lambda: self.builder.initialiser(to_array(tensor, self.model.folder))

    def subgraph(self, proto: onnx.GraphProto, arguments: Mapping[str, Value]) -> list[Value]:
        """Import a graph inside the current scope, at the builder's place, its inputs standing for `arguments`."""
        outer = self.scope
        prefix = "/".join(self.builder.loc) + "/"
        scope = Scope(outer.opsets, outer, prefix, outer.attributes, dict(arguments))
        return self.graph(proto, scope)

    def attempt(self, proto: onnx.GraphProto) -> list[Value] | InputError:
        """`subgraph` of a graph that may never run, or why it cannot be for these shapes."""
        try:
            return self.subgraph(proto, {})
        except (NeedsValue, Unsupported):
            raise
        except InputError as e:
            return e

    def _node(self, node: onnx.NodeProto, index: int) -> None:
        name = self.scope.prefix + node_name(node, index)
        with self.builder.at(name):
            try:
                values = self._results(node, name)
            except TccError as e:
                text = str(e)
                if f'"{name}' in text:
                    raise
                text = f'node "{name}" ({node.op_type}): {text}'
                raise again(e, text) from e
        for output, value in values.items():
            self._define(output, value)

    def _results(self, node: onnx.NodeProto, name: str) -> dict[str, Value]:
        """The values of a node's outputs by name."""
        values = self._import(node, name)
        if len(values) < len([o for o in node.output if o]):
            raise InputError(f"tcc does not give its output(s) {', '.join(node.output[len(values) :])}")
        out: dict[str, Value] = {}
        for output, value in zip(node.output, values, strict=False):
            if output and value is None:
                raise InputError(f'tcc does not give its output "{output}"')
            if output and value is not None:
                out[output] = value
        return out

    def _define(self, name: str, value: Value) -> None:
        self.scope.values[name] = value
        self.scope.pending.pop(name, None)
        if value.hint is None:
            value.hint = name

    def _operands(self, node: onnx.NodeProto) -> list[Value | None]:
        return [self.scope.find(i) if i else None for i in node.input]

    def _attributes(self, node: onnx.NodeProto) -> dict[str, AttributeProto]:
        out: dict[str, AttributeProto] = {}
        for a in node.attribute:
            if not a.ref_attr_name:
                out[a.name] = a
                continue
            bound = (self.scope.attributes or {}).get(a.ref_attr_name)
            if bound is not None:
                copy = AttributeProto()
                copy.CopyFrom(bound)
                copy.name = a.name
                out[a.name] = copy
        return out

    def _import(self, node: onnx.NodeProto, name: str) -> Sequence[Value | None]:
        domain = domain_of(node.domain)
        operands = self._operands(node)
        attributes = self._attributes(node)
        local = self.functions.local.get((domain, node.op_type, node.overload))
        if local is not None:
            return self.call(local, operands, bound_attributes(local, attributes, None), name)
        opset = self.scope.opsets.get(domain)
        if opset is None:
            raise Unsupported(f"the domain {domain or 'ai.onnx'} has no opset in the model")
        self._check_attributes(node, opset, attributes)
        handler = handlers().get((domain, node.op_type))
        if handler is not None:
            made = Node(node, opset, name, operands, attributes, self)
            try:
                out = handler(made)
            except ComputedOperand:
                if host_function(node.op_type, domain) is None:
                    raise
                return host_call(made)
            return [out] if isinstance(out, Value) else list(out)
        if host_function(node.op_type, domain) and not self.functions.schema_function(node.op_type, domain, opset):
            return host_call(Node(node, opset, name, operands, attributes, self))
        return self.expand(node, opset, operands, attributes, name)

    def _check_attributes(self, node: onnx.NodeProto, opset: int, attributes: Mapping[str, AttributeProto]) -> None:
        declared = self.functions.attribute_types(node.op_type, domain_of(node.domain), opset)
        for key, a in attributes.items():
            if a.type == AttributeProto.UNDEFINED or a.type != declared.get(key, a.type):
                kinds = AttributeProto.AttributeType
                have, want = (kinds.Name(t) if t in kinds.values() else t for t in (a.type, declared.get(key)))
                raise Unsupported(f"its attribute {key} is of type {have}, and {want or 'a type'} is needed")

    def expand(
        self,
        node: onnx.NodeProto,
        opset: int,
        operands: Sequence[Value | None],
        attributes: Mapping[str, AttributeProto],
        name: str,
    ) -> Sequence[Value | None]:
        """Import a node as the function that ONNX defines for its operator."""
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        del plain.attribute[:]
        plain.attribute.extend(attributes.values())
        schema = self.functions.schema_function(node.op_type, domain_of(node.domain), opset)
        body = None if schema is None else self.functions.body(schema, plain, opset, operands)
        if body is None:
            what = "with these operands and attributes" if schema is not None else f"of {node.domain or 'ai.onnx'}"
            text = f"tcc has no import for {node.op_type} {what}, opset {opset}"
            raise InputError(text) if schema is not None else Unsupported(text)
        return self.call(body, operands, bound_attributes(body, attributes, schema), name)

    def call(
        self,
        function: onnx.FunctionProto,
        operands: Sequence[Value | None],
        attributes: Mapping[str, AttributeProto],
        name: str,
    ) -> list[Value | None]:
        """Import a function's body in place of a node."""
        if len(operands) > len(function.input):
            raise InputError(f"{function.name} takes {len(function.input)} inputs, not {len(operands)}")
        opsets = {**self.scope.opsets, **opsets_of(function.opset_import)}
        scope = Scope(opsets, None, f"{name}/", attributes)
        absent: set[str] = set()
        for i, formal in enumerate(function.input):
            value = operands[i] if i < len(operands) else None
            if value is None:
                absent.add(formal)
            else:
                scope.values[formal] = value
        nodes = [_without(n, absent) for n in function.node] if absent else list(function.node)
        with self._within(scope):
            self._nodes(nodes, scope.names(), f"{function.name}'s body")
            return [scope.values.get(o) for o in function.output]


def _without(node: onnx.NodeProto, absent: set[str]) -> onnx.NodeProto:
    """The node with operands that the caller left out made absent."""
    if not any(i in absent for i in node.input):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    kept = ["" if i in absent else i for i in node.input]
    while kept and kept[-1] == "":
        kept.pop()
    del copy.input[:]
    copy.input.extend(kept)
    return copy
