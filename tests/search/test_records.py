# SPDX-License-Identifier: Apache-2.0
"""Records: readable, mergeable, forgiving, and a winner that does not depend on the order of rows."""

import json
import multiprocessing
import random
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from tcc.compiler.search.records import MOST_TIE, STATUSES, Context, Records, Row, Time, parse, tied, time_of, times
from tcc.errors import InputError

HERE = Context("cpu", "a CPU", "", "llvmlite 0", 2)
KEY = "0" * 32


def row(
    mode: str = "a", samples: tuple[float, ...] = (1e-3, 1.1e-3, 1.2e-3), status: str = "ok", **other: object
) -> Row:
    base = Row(KEY, "llvm.odd", "f" * 16, {"mode": mode}, HERE.to_json(), status, samples)
    return replace(base, **other)  # type: ignore[arg-type]


def test_a_row_reads_back() -> None:
    for status in STATUSES:
        mine = row(status=status, samples=(2.5e-6,) if status == "ok" else (), message="naïve \n reason")
        line = mine.line()
        assert "\n" not in line
        assert parse(line) == mine


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "Expecting"),
        ("[]", "it is no object"),
        (json.dumps({"format": 99}), "its format is 99, not 1"),
        (row().line().replace('"ok"', '"fine"'), "'fine' is none of ok"),
        (row().line().replace("0.001,", "-1,"), "not above 0"),
        (row().line().replace("0.001,", "null,"), "no number"),
        (row(samples=()).line(), "has no samples"),
        (row().line().replace('"config": {', '"config": 3, "x": {'), "config is missing or no dict"),
    ],
)
def test_bad_rows_say_why(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(line)


def test_corrupt_rows_are_skipped_with_one_warning(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    good = row().line()
    path.write_text(f"{good}\n{good[:50]}\n\nnot json\n{row('b').line()}\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="2 rows are skipped .line 2"):
        records = Records.load(path)
    assert [r.config["mode"] for r in records.rows[KEY]] == ["a", "b"]


def test_rows_of_other_problems_are_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    other = row(problem="1" * 32).line()
    path.write_text(f"{row().line()}\n{other.replace('ok', 'fine')}\n", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = Records.load(path, {KEY})
    assert list(records.rows) == [KEY]


def test_a_file_cut_short_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(row().line()[:40], encoding="utf-8")
    Records(path).add([row("b")])
    with pytest.warns(UserWarning, match="1 rows are skipped"):
        records = Records.load(path)
    assert [r.config["mode"] for r in records.rows[KEY]] == ["b"]


def test_files_merge_with_cat(tmp_path: Path) -> None:
    for name, mode in (("a", "a"), ("b", "b")):
        Records(tmp_path / name).add([row(mode)])
    (tmp_path / "both").write_bytes((tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes())
    assert len(Records.load(tmp_path / "both").rows[KEY]) == 2


def append(path: Path, number: int) -> None:
    records = Records(path)
    for i in range(50):
        records.add([row(f"{number}-{i}-{j}", message="x" * 300) for j in range(5)])


def test_processes_may_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=append, args=(path, n)) for n in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = Records.load(path).rows[KEY]
    assert len({r.config["mode"] for r in rows}) == len(rows) == 3 * 50 * 5


def test_only_rows_of_the_same_context_count() -> None:
    records = Records()
    others = [replace(HERE, threads=4), replace(HERE, device="another"), replace(HERE, toolchain="llvmlite 1")]
    records.add([row(str(i), context=c.to_json()) for i, c in enumerate(others)])
    records.add([row("mine"), row("in a model", plan="model abc")])
    assert [r.config["mode"] for r in records.of(KEY, HERE)] == ["mine"]


def test_another_machines_rows_stand_in_whole() -> None:
    far, near = replace(HERE, device="b"), replace(HERE, device="a")
    records = Records()
    records.add([row("x", context=near.to_json()), row("y", context=near.to_json())])
    records.add([row("x", context=far.to_json()), row("z", context=replace(HERE, target="sm_90").to_json())])
    for _ in range(4):
        random.shuffle(records.rows[KEY])
        assert {r.config["mode"] for r in records.foreign(KEY, "cpu")} == {"x", "y"}
        assert {r.context["device"] for r in records.foreign(KEY, "cpu")} == {"a"}
    assert [r.config["mode"] for r in records.foreign(KEY, "sm_90")] == ["z"]
    assert records.foreign(KEY, "sm_75") == []


def test_the_answer_does_not_depend_on_the_order_of_rows() -> None:
    rng = random.Random(0)
    rows = [
        row(m, tuple(rng.uniform(1, 1.3) * s for _ in range(5))) for m, s in zip("abcabc", [1, 2, 3] * 2, strict=True)
    ]
    wanted = times(rows)
    for _ in range(10):
        rng.shuffle(rows)
        assert times(rows) == wanted
        assert tied(times(rows)) and set(tied(times(rows))) == set(tied(wanted))


def test_what_was_ever_wrong_never_wins() -> None:
    rows = [row("a", (1e-6,)), row("b", (2e-6,)), row("a", (), "wrong"), row("c", (), "fault")]
    assert set(times(rows)) == {row("b").key}


def test_times_and_ties() -> None:
    assert time_of([5.0, 1.0, 2.0, 1.5]).seconds == 1.0
    assert time_of([1.0] * 5) == Time(1.0, 0.0)
    exact = {"a": Time(1.0, 0.0), "b": Time(1.019, 0.0), "c": Time(1.03, 0.0)}
    assert tied(exact) == ["a", "b"]
    loose = {"a": Time(1.0, 0.1), "b": Time(1.04, 0.1), "c": Time(1.0 + 2 * MOST_TIE, 0.5)}
    assert tied(loose) == ["a", "b"]


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the records"):
        Records.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write the records .*--records"):
        Records(tmp_path / "file" / "r.jsonl").add([row()])
