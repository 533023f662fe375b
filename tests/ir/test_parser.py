# SPDX-License-Identifier: Apache-2.0
"""Reading IR text: scoping, names, shorthands, and what errors say and where they point."""

from __future__ import annotations

import time

import pytest

from tcc.ir.declare import IRError
from tcc.ir.parser import parse, parse_block, parse_op
from tcc.ir.printer import print_op
from tcc.ir.resources import ResourceStore
from tcc.ir.types import F32, TensorType
from tcc.ir.verifier import verify

T = "tensor<4xf32>"
FUNC = """\
graph.func() {{sym_name = "{name}", arg_names = ["x"], result_names = ["y"]}} ({{
^bb0(%x: tensor<4xf32>):
{body}
}}) : () -> ()
"""


def func(*lines: str, name: str = "main") -> str:
    return FUNC.format(name=name, body="\n".join(f"  {line}" for line in lines))


RELU = f"%r = graph.relu(%x) : ({T}) -> {T}"
RETURN = f"graph.return(%r) : ({T}) -> ()"


def test_names_survive():
    text = print_op(parse(func(RELU.replace("%r", "%hot"), RETURN.replace("%r", "%hot"))))
    assert "%hot = graph.relu(%x)" in text
    assert print_op(parse(text)) == text


def test_numbers_are_given_anew():
    text = print_op(parse(func(RELU.replace("%r", "%17"), RETURN.replace("%r", "%17"))))
    assert "%0 = graph.relu(%x)" in text


def test_a_module_is_put_around_loose_ops():
    one = func(RELU, RETURN)
    module = parse(one + func(RELU, RETURN, name="other"))
    assert list(module.functions()) == ["main", "other"]
    assert parse(print_op(module)).functions().keys() == module.functions().keys()
    assert list(parse("").ops) == []


def test_isolated_ops_may_use_the_same_names():
    text = print_op(parse(func(RELU, RETURN) + func(RELU, RETURN, name="other")))
    verify(parse(text))
    assert print_op(parse(text)) == text


def test_isolated_ops_do_not_see_out():
    with pytest.raises(IRError, match=r"the value %c is not defined before this use"):
        parse(
            f"%c = graph.constant() {{value = dense<4xf32: 1>}} : () -> {T}\n" + func(RELU.replace("%x", "%c"), RETURN)
        )


def test_regions_see_out_and_are_not_seen():
    body = f"graph.yield(%r) : ({T}) -> ()"
    group = f"%g = graph.fused(%x) ({{\n^bb0(%a: {T}):\n  {RELU.replace('%x', '%a')}\n  {body}\n}}) : ({T}) -> {T}"
    verify(parse(func(group, RETURN.replace("%r", "%g"))))
    with pytest.raises(IRError, match=r"%r is not defined"):
        parse(func(group, RETURN))


def test_single_ops_and_blocks():
    arg = {"x": TensorType((4,), F32)}
    op = parse_op(f"graph.relu(%x) : ({T}) -> {T}", arg)
    assert (op.name, op.results[0].type) == ("graph.relu", arg["x"])
    block = parse_block(f"{RELU}\n%s = graph.exp(%r) : ({T}) -> {T}", arg)
    assert [o.name for o in block.ops] == ["graph.relu", "graph.exp"]
    assert block.args[0].users == [block.first]
    with pytest.raises(IRError, match=r"holds 2 ops, not one"):
        parse_op(f"{RELU}\n{RELU.replace('%r', '%s')}", arg)


def test_dense_becomes_a_resource():
    store = ResourceStore()
    op = parse(f"%c = graph.constant() {{value = dense<4xf32: 1, 2, 3, 4>}} : () -> {T}", resources=store).block.first
    assert op is not None
    assert store.get(op.attrs["value"]).tolist() == [1, 2, 3, 4]


def test_comments_and_blanks_are_free():
    text = func(RELU, RETURN)
    spread = "// a comment\n" + text.replace(" ", "  \t").replace("):", ")  :  // and one here\n\n")
    assert print_op(parse(spread)) == print_op(parse(text))


def test_defaults_are_filled_and_not_printed():
    op = parse_op(f"graph.softmax(%x) {{axis = -1}} : ({T}) -> {T}", {"x": TensorType((4,), F32)})
    assert op.attrs["axis"] == -1
    assert (
        print_op(parse_block(f"%y = graph.leaky_relu(%x) : ({T}) -> {T}", {"x": TensorType((4,), F32)}).first).count(
            "{"
        )
        == 0
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("graph.relu( : () -> ()", "t.mlir:1:13: found `: () -> ()`, expected `)` or a value (%name)"),
        (f"\n\n  %y = graph.relu(%x) : ({T}) -> {T}", "t.mlir:3:19: the value %x is not defined before this use"),
        ("graph.rleu() : () -> ()", "t.mlir:1:1: there is no op graph.rleu (did you mean graph.relu"),
        (f"%a = graph.relu() : () -> {T}", "t.mlir:1:6: graph.relu does not take 0 operands"),
        (func(RELU, RELU, RETURN), "t.mlir:4:3: the value %r is defined twice"),
        (func(RELU.replace("4x", "5x"), RETURN), "t.mlir:3:19: %x is a tensor<4xf32>, but graph.relu names it a "),
        (func(f"%r, %s = graph.relu(%x) : ({T}) -> {T}"), "graph.relu has 2 result names and 1"),
        (func(f"%r = graph.relu(%x) : ({T}, {T}) -> {T}"), "graph.relu has 1 operands and 2 operand types"),
        (func(f"%r = graph.softmax(%x) : ({T}) -> {T}"), "t.mlir:3:8: graph.softmax needs the attribute axis (int)"),
        (func(f"%r = graph.softmax(%x) {{axis = 1.0}} : ({T}) -> {T}"), "axis must be int, not 1.0"),
        (func(f"%r = graph.softmax(%x) {{axis = 1, b = 2}} : ({T}) -> {T}"), "has no attribute b; it has axis"),
        ("a.b() {k = map<(i j)>} : () -> ()", "t.mlir:1:12: the index map `(i j)` is not readable at character 4"),
        ("a.b() {k = resource<12>} : () -> ()", "t.mlir:1:12: a resource is named by 64 hex digits"),
        ("a.b() {k = 1, k = 2} : () -> ()", "t.mlir:1:15: the attribute k is given twice"),
        ("a.b() {k = f33} : () -> ()", "t.mlir:1:12: there is no element type f33"),
        ("a.b() : () -> tensor<?xf32>", "t.mlir:1:15: a tensor type has 1 dims `?` and 0 in dims=[…]"),
        ('a.b() {k = "open} : () -> ()', 't.mlir:1:12: found `"open} : () -> ()`, expected'),
        ("a.b() : () ->", "t.mlir:1:14: found the end of the text, expected"),
        ("graph.yield() : () -> () }", "t.mlir:1:26: found `}`, expected"),
        ("builtin.module() ({^a: ^a:}) : () -> ()", "the block ^a is defined twice"),
        (
            "kernel.reduce() {domain = domain<i=4 | k=2>, maps = [], out_maps = [], combine = [\"sum\"]} : () -> ()",
            "kernel.reduce needs operandSegmentSizes, one count for each operand field, 0 in all",
        ),
    ],
)  # fmt: skip
def test_errors_say_where_and_what(text: str, message: str):
    with pytest.raises(IRError) as e:
        parse(text, "t.mlir")
    assert message in str(e.value)


def test_a_module_stands_alone():
    with pytest.raises(IRError, match="not the only op"):
        parse("builtin.module() ({^a:}) : () -> ()\n" * 2)


@pytest.mark.parametrize("cut", range(0, 700, 13))
def test_truncated_text_is_an_error_with_a_place(cut: int):
    text = print_op(parse(func(RELU, RETURN) + func(RELU, RETURN, name="other")))
    if cut >= len(text.rstrip()):
        return
    try:
        parse(text[:cut], "t.mlir")
    except IRError as e:
        assert str(e).startswith("t.mlir:")
    else:
        assert not text[:cut].strip()


def test_a_megabyte_takes_seconds():
    line = (
        '%{1} = graph.leaky_relu(%{0}) {{alpha = 0.5}} : (tensor<?x64x56x56xf32, #tcc.enc<"dims=[n]">>) -> '
        'tensor<?x64x56x56xf32, #tcc.enc<"dims=[n]">> loc("LeakyRelu_{0}")\n'
    )
    big = "".join(line.format(i, i + 1) for i in range(7000))
    from tcc.ir.expr import Sym

    begun = time.perf_counter()
    block = parse_block(big.replace("%0)", "%x)", 1), {"x": TensorType((Sym("n"), 64, 56, 56), F32)})
    seconds = time.perf_counter() - begun
    assert len(big) > 1_000_000
    assert sum(1 for _ in block.ops) == 7000
    assert seconds < 15  # 1.3 s on an idle core; the limit only has to catch what is not linear


def test_what_is_printed_before_a_function_does_not_change_its_text():
    one = parse(func(RELU, RETURN))
    two = parse(func(RELU, f"%2 = graph.exp(%r) : ({T}) -> {T}", RETURN, name="first") + func(RELU, RETURN))
    alone, beside = (print_op(m).split('sym_name = "main"')[1] for m in (one, two))
    assert alone == beside
