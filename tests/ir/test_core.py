# SPDX-License-Identifier: Apache-2.0
"""SSA structure, the verifier's sentences, and the rewriter."""

from __future__ import annotations

import pytest

from tcc.ir.core import Op
from tcc.ir.declare import INT, OPS, Attr, IRError, Operand, OptionalOperand, Result, Variadic, register
from tcc.ir.expr import Sym
from tcc.ir.parser import parse, parse_block
from tcc.ir.printer import print_op
from tcc.ir.rewriter import Rewriter, apply_patterns
from tcc.ir.types import F32, TensorType
from tcc.ir.verifier import verify

T = "tensor<4xf32>"
ARG = {"x": TensorType((4,), F32)}
CHAIN = (
    f"%a = graph.neg(%x) : ({T}) -> {T}\n%b = graph.neg(%a) : ({T}) -> {T}\n%c = graph.add(%b, %b) : ({T}, {T}) -> {T}"
)


def names(block) -> list[str]:
    return [op.name.removeprefix("graph.") for op in block.ops]


def test_uses_follow_operands():
    block = parse_block(CHAIN, ARG)
    a, b, c = block.ops
    assert b.result.uses == [(c, 0), (c, 1)]
    assert b.result.users == [c]
    c.set_operand(1, a.result)
    assert (a.result.use_count, b.result.use_count) == (2, 1)
    b.result.replace_all_uses_with(a.result)
    assert c.operands == (a.result, a.result)
    assert b.result.use_count == 0
    b.erase()
    assert a.result.users == [c]
    assert names(block) == ["neg", "add"]


def test_an_op_in_use_is_not_erased():
    block = parse_block(CHAIN, ARG)
    assert block.first is not None
    with pytest.raises(AssertionError, match="erased while in use"):
        block.first.erase()


def test_clone_is_deep_and_apart():
    m = parse(f"%x = graph.constant() {{value = dense<4xf32: 1>}} : () -> {T}\n{CHAIN}")
    copy = m.clone()
    assert print_op(copy) == print_op(m)
    for op in list(copy.walk()):
        assert op not in set(m.walk())
    first = m.block.first
    assert first is not None
    assert all(user in set(m.walk()) for user in first.result.users)


def test_moving_and_order():
    block = parse_block(CHAIN, ARG)
    a, b, c = block.ops
    assert a.is_before(c)
    assert not c.is_before(a)
    c.detach()
    block.insert_before(c, a)
    assert list(block.ops) == [c, a, b]
    assert (block.first, block.last) == (c, b)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"%b = graph.relu(%x) : ({T}) -> tensor<5xf32> loc(\"R\")", 'graph.relu at "R": result 0 is a tensor<5'),
        (f"%b = graph.relu(%x) : ({T}) -> tensor<4xf16>", "its operands and attributes give tensor<4xf32>"),
        (f"graph.return(%x) : ({T}) -> ()\n%b = graph.relu(%x) : ({T}) -> {T}", "a terminator that is not the last op"),
        (f"%b = graph.topk(%x) {{k = 1, axis = 0}} : ({T}) -> {T}", "it has 1 results and declares 2"),
        ("graph.if(%x) ({^a:}) : (tensor<4xf32>) -> ()", "it has 1 regions and declares 2"),
    ],
)  # fmt: skip
def test_the_verifier_says_one_sentence(text: str, message: str):
    end = "" if "return" in text else f"\ngraph.return(%x) : ({T}) -> ()"
    head = 'graph.func() {sym_name = "f", arg_names = ["x"], result_names = ["y"]} ({\n'
    m = parse(f"{head}^bb0(%x: {T}):\n{text}{end}\n}}) : () -> ()")
    with pytest.raises(IRError) as e:
        verify(m)
    assert message in str(e.value)
    assert "\n" not in str(e.value)


def test_use_before_definition_is_found():
    block = parse_block(CHAIN, ARG)
    a, _, c = block.ops
    m = parse("")
    func = parse('graph.func() {sym_name = "f", arg_names = [], result_names = []} ({^a:}) : () -> ()').block.first
    assert func is not None
    m.block.append(func.detach())
    inside = func.regions[0].block
    arg = inside.add_arg(ARG["x"])
    for op in list(block.ops):
        inside.append(op.detach())
    a.set_operand(0, arg)
    a.detach()
    inside.insert_before(a, None)
    with pytest.raises(IRError, match="used before it is defined"):
        verify(m)
    assert c.parent is inside


def test_symbolic_extents_are_not_compared_with_known_ones():
    t = 'tensor<?xf32, #tcc.enc<"dims=[n]">>'
    head = 'graph.func() {sym_name = "f", arg_names = ["x"], result_names = ["y"]} ({\n'
    body = f"^bb0(%x: {t}):\n%y = graph.relu(%x) : ({t}) -> {T}\ngraph.return(%y) : ({T}) -> ()"
    verify(parse(f"{head}{body}\n}}) : () -> ()"))
    assert parse_block(f"%y = graph.relu(%x) : ({t}) -> {t}", {"x": TensorType((Sym("n"),), F32)}).first is not None


def _drop_double_negation(op: Op, rewriter: Rewriter) -> bool:
    inner = op.operands[0].defining_op
    if inner is None or inner.name != "graph.neg":
        rewriter.remark(op, "fold", "kept", "its operand is no negation")
        return False
    rewriter.replace(op, inner.operands[0])
    if inner.result.use_count == 0:
        rewriter.erase(inner)
    return True


def test_patterns_run_until_nothing_changes_and_leave_remarks():
    source = f"%x = graph.constant() {{value = dense<4xf32: 1>}} : () -> {T}\n"
    many = "\n".join(f"%v{i + 1} = graph.neg(%v{i}) : ({T}) -> {T}" for i in range(8)).replace("%v0)", "%x)")
    m = parse(f"{source}{many}\n%e = graph.exp(%v8) : ({T}) -> {T}")
    rewriter = Rewriter("demo")
    assert apply_patterns(m, {"graph.neg": [_drop_double_negation]}, rewriter)
    assert rewriter.changed
    assert names(m.block) == ["constant", "exp"]
    row = rewriter.decisions.rows[0]
    assert (row.pass_name, row.kind, row.op, row.reason) == ("demo", "fold", "graph.neg", "its operand is no negation")
    assert not apply_patterns(m, {"graph.neg": [_drop_double_negation]}, Rewriter("demo"))


def test_patterns_that_undo_each_other_are_an_error():
    m = parse(f"%x = graph.constant() {{value = dense<4xf32: 1>}} : () -> {T}\n%a = graph.neg(%x) : ({T}) -> {T}")

    def flip(to: str):
        def pattern(op: Op, rewriter: Rewriter) -> bool:
            rewriter.replace(op, OPS[to](op.operands[0]))
            return True

        return pattern

    with pytest.raises(RuntimeError, match="patterns do not settle"):
        patterns = {"graph.neg": [flip("graph.abs")], "graph.abs": [flip("graph.neg")]}
        apply_patterns(m, patterns, Rewriter("demo"), limit=50)


def test_replace_unites_locations_and_keeps_names():
    m = parse(
        f'%x = graph.constant() {{value = dense<4xf32: 1>}} : () -> {T}\n%a = graph.neg(%x) : ({T}) -> {T} loc("A")'
    )
    neg = m.block.last
    assert neg is not None
    new = OPS["graph.abs"](neg.operands[0], loc=("B",))
    Rewriter("demo").replace(neg, new)
    assert new.loc == ("B", "A")
    assert new.result.hint == "a"


def test_declared_fields_are_checked():
    class Demo(Op):
        name = "demo.op"
        a = Operand()
        b = OptionalOperand()
        rest = Variadic()
        size = Attr(INT, 3)
        y = Result()

        def infer(self):
            return [self.a.type]

    register(Demo)
    try:
        x = parse_block("", ARG).args[0]
        op = Demo(x, None, [x, x], size=4)
        assert (op.a, op.b, op.rest, op.size, op.y.type) == (x, None, (x, x), 4, ARG["x"])
        assert op.segments == (1, 0, 2)
        op.size = 5
        assert op.attrs["size"] == 5
        with pytest.raises(IRError, match=r"demo.op: size must be int, not 'a'"):
            op.size = "a"  # pyright: ignore
        with pytest.raises(IRError, match=r"demo.op has no attribute sise; it has size"):
            Demo(x, sise=3)
        with pytest.raises(IRError, match=r"operand a takes one, not 0"):
            Demo(None)
        with pytest.raises(ValueError, match="declared twice"):
            register(Demo)
    finally:
        del OPS["demo.op"]
