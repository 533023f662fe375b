# SPDX-License-Identifier: Apache-2.0
"""Pipelines as text, and the registry of passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest

from tcc.errors import InputError
from tcc.passes.base import PASSES, Pass, load_passes, pass_options, register_pass
from tcc.passes.pipeline import parse_pipeline, print_pipeline


@dataclass(frozen=True)
class Demo(Pass):
    """Does nothing. before: a module; after: the same."""

    name = "demo-pass"
    max_ops: int = 3
    bold: bool = False
    kinds: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (1, 2)
    level: float = 0.5
    mode: Literal["a", "b"] = "a"
    word: str | None = None

    def run(self, module, rewriter, context) -> None:
        pass


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    load_passes()
    register_pass(Demo)
    yield
    del PASSES["demo-pass"]


@pytest.mark.parametrize(
    ("text", "passes", "canonical"),
    [
        ("", [], ""),
        ("demo-pass", [Demo()], "demo-pass"),
        ("demo-pass{}", [Demo()], "demo-pass"),
        (" demo-pass , demo-pass{max-ops=16} ", [Demo(), Demo(16)], "demo-pass,demo-pass{max-ops=16}"),
        ("demo-pass{max-ops=3 level=0.5}", [Demo()], "demo-pass"),
        ("demo-pass{bold}", [Demo(bold=True)], "demo-pass{bold=true}"),
        ("demo-pass{max-ops=-4 level=1e-3}", [Demo(max_ops=-4, level=0.001)], "demo-pass{max-ops=-4 level=0.001}"),
        ("demo-pass{kinds=[a,b-c]}", [Demo(kinds=("a", "b-c"))], "demo-pass{kinds=[a,b-c]}"),
        ("demo-pass{kinds=one sizes=[]}", [Demo(kinds=("one",), sizes=())], "demo-pass{kinds=[one] sizes=[]}"),
        ('demo-pass{kinds=["a b","{,}"]}', [Demo(kinds=("a b", "{,}"))], 'demo-pass{kinds=["a b","{,}"]}'),
        ("demo-pass{mode=b word=sm_80}", [Demo(mode="b", word="sm_80")], "demo-pass{mode=b word=sm_80}"),
    ],
)
def test_pipelines_round_trip(text: str, passes: list[Pass], canonical: str):
    assert parse_pipeline(text) == passes
    assert print_pipeline(passes) == canonical
    assert parse_pipeline(canonical) == passes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("demo-pas", "there is no pass demo-pas (did you mean demo-pass"),
        ("demo-pass,,demo-pass", "the pipeline is not readable at character 11 (',demo-pass')"),
        ("demo-pass{", "the pipeline is not readable at character 11 ('')"),
        ("demo-pass{max_ops=1}", "not readable at character"),
        (
            "demo-pass{maxops=1}",
            "the pass demo-pass has no option maxops (did you mean max-ops?); it has max-ops, bold",
        ),
        ("demo-pass{max-ops=x}", "the option max-ops of demo-pass must be int, not x"),
        ("demo-pass{max-ops}", "the option max-ops of demo-pass needs a value: max-ops=int"),
        ("demo-pass{max-ops=[1]}", "the option max-ops of demo-pass takes one int, not a list"),
        ("demo-pass{mode=c}", "the option mode of demo-pass must be a|b, not c"),
        ("demo-pass{bold=yes}", "the option bold of demo-pass must be bool, not yes"),
        ("demo-pass{max-ops=1 max-ops=2}", "the option max-ops of demo-pass is given twice"),
    ],
)
def test_errors_say_what_is_wrong(text: str, message: str):
    with pytest.raises(InputError) as e:
        parse_pipeline(text)
    assert message in str(e.value)
    assert e.value.exit_code == 2


def test_what_is_no_proper_pass_is_refused():
    with pytest.raises(TypeError, match="not a frozen dataclass"):

        @register_pass
        @dataclass
        class Thawed:
            name = "thawed"

    with pytest.raises(ValueError, match="no kebab-case name"):

        @register_pass
        @dataclass(frozen=True)
        class Unnamed(Pass):
            """before, after"""

            name = "Not_Kebab"

    with pytest.raises(ValueError, match="no docstring"):

        @register_pass
        @dataclass(frozen=True)
        class Silent(Pass):
            name = "silent"

    with pytest.raises(TypeError, match="needs a default"):

        @register_pass
        @dataclass(frozen=True)
        class Bare(Pass):
            """before, after"""

            name = "bare"
            size: int = dataclasses.field(kw_only=True)

    assert not {"thawed", "Not_Kebab", "silent", "bare"} & PASSES.keys()


def test_every_pass_in_the_folders_is_well_described():
    for name, cls in load_passes().items():
        assert parse_pipeline(name) == [cls()], name
        doc = (cls.__doc__ or "").lower()
        assert ("before" in doc and "after" in doc) or "→" in doc, f"{name}: its docstring shows no before and after"
        for option in pass_options(cls).values():
            assert option.name == option.field.replace("_", "-")
