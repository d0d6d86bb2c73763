"""The order of a flow's steps, and what is no flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from earthgptx.pipeline.errors import JobError
from earthgptx.workflows.flow.order import ordered
from earthgptx.workflows.flow.ranges import chunks
from earthgptx.workflows.flow.spec import FlowSpec, read_flow
from earthgptx.workflows.flow.watching import pause_of

CHECK = {"check": {"failed": 0.1}}


def from_step(name: str, source: str) -> dict[str, Any]:
    return {"job": f"{name}.yaml", "prompts": {"from": source, "within": "P1D"}}


def order_of(*steps: dict[str, Any]) -> list[str]:
    return [node.name for node in ordered(FlowSpec(name="flow", steps=list(steps)).steps)]


@pytest.mark.parametrize(
    ("steps", "order"),
    [
        ([{"job": "a.yaml"}, {"job": "jobs/b.yaml"}], ["a", "b"]),
        ([from_step("a", "b"), {"job": "b.yaml"}], ["b", "a"]),
        ([from_step("a", "b"), from_step("b", "c"), {"job": "c.yaml"}], ["c", "b", "a"]),
        ([{"job": "a.yaml"}, CHECK, {"publish": "x"}], ["a", "check", "publish"]),
        ([{"job": "a.yaml"}, CHECK, {"job": "b.yaml"}, CHECK], ["a", "check", "b", "check-2"]),
        (
            [{"job": "a.yaml", "name": "ships"}, {"publish": "x", "of": ["ships"]}],
            ["ships", "publish"],
        ),
        (
            [{"select": {"from": "b", "to": "t.csv", "count_by": ["label"]}}, {"job": "b.yaml"}],
            ["b", "select"],
        ),
    ],
)
def test_each_step_comes_after_what_it_needs(steps: list[dict[str, Any]], order: list[str]) -> None:
    assert order_of(*steps) == order


def test_a_publication_needs_the_jobs_and_the_checks_before_it() -> None:
    spec = FlowSpec(
        name="flow", steps=[{"job": "a.yaml"}, CHECK, {"publish": "x"}, {"job": "b.yaml"}, CHECK]
    )
    needs = {node.name: set(node.needs) for node in ordered(spec.steps)}
    assert needs["publish"] == {"a", "check"}
    assert needs["check-2"] == {"a", "b"}


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([from_step("a", "b"), from_step("b", "a")], "in a circle: .*a.*b"),
        ([from_step("a", "a")], "takes prompts from itself"),
        ([from_step("a", "ship")], "needs 'ship', which is no job of this flow; there are a"),
        ([{"job": "a.yaml"}, CHECK | {"of": ["b"]}], "needs 'b', which is no job"),
        ([{"job": "a.yaml"}, {"job": "x/a.yaml"}], "two steps are called 'a'"),
        ([CHECK, {"job": "a.yaml"}], "comes before any job"),
    ],
)
def test_steps_that_have_no_order_are_refused(steps: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(JobError, match=said):
        order_of(*steps)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x", "'steps' is missing"),
        ("name: x\nsteps: []", "'steps'"),
        ("name: x\nsteps: [{jib: a.yaml}]", "unknown key 'steps.0.jib'; did you mean 'job'"),
        ("name: x\nsteps: [{job: a.yaml, publish: y}]", "this one is job and publish"),
        ("name: x\nsteps: [{name: y}]", "this one is nothing"),
        ("name: x\nsteps: [{job: a.yaml}, {check: {}}]", "nothing is checked; set one of failed"),
        ("name: x\nsteps: [{job: a.yaml}, {check: {failed: 2}}]", "less than or equal to 1"),
        (
            "name: x\nsteps: [{publish: y, prompts: {from: a, within: P1D}}]",
            "prompts goes with a job",
        ),
        ("name: x\nsteps: [{job: a.yaml, prompts: {from: b}}]", "within' is missing"),
        ("name: x\nsteps: [{select: {from: a, to: t.txt}}]", "does not end in .csv or .parquet"),
        ("name: x\nsteps: [{job: a.yaml}]\nnotify: {url: 'ftp://x'}", "is no http:// or https://"),
        ("steps: [", "is not YAML"),
    ],
)
def test_a_file_that_is_no_flow_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "flow.yaml").write_text(text)
    with pytest.raises(JobError, match=said):
        read_flow(tmp_path / "flow.yaml")
    with pytest.raises(JobError, match="cannot read the flow file"):
        read_flow(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("first", "last", "length", "count", "begins"),
    [
        ("2026-01", "2026-03", "P1M", 3, ["2026-01-01", "2026-02-01", "2026-03-01"]),
        ("2026-01-31", "2026-03-31", "P1M", 3, ["2026-01-31", "2026-02-28", "2026-03-31"]),
        ("2026-01-01", "2026-01-10", "P4D", 3, ["2026-01-01", "2026-01-05", "2026-01-09"]),
        ("2026-01-01", "2026-01-01", "P1M", 1, ["2026-01-01"]),
    ],
)
def test_a_range_in_chunks_without_a_gap(
    first: str, last: str, length: str, count: int, begins: list[str]
) -> None:
    found = chunks(first, last, length, newest_first=False)
    assert [each[:10] for each in found] == begins
    assert len(found) == count
    assert found[::-1] == chunks(first, last, length, newest_first=True)
    assert all(each.partition("/")[2].endswith("59.999999Z") for each in found)


@pytest.mark.parametrize(
    ("first", "last", "length", "said"),
    [
        ("2026-02", "2026-01", "P1M", "ends before it starts"),
        ("then", "2026-01", "P1M", "is no interval"),
        ("..", "2026-01", "P1M", "give both"),
        ("2026-01", "2026-02", "a month", "is no duration"),
        ("2026-01", "2026-02", "P0D", "is no length of a chunk"),
        ("1990-01", "2026-02", "PT1H", "more than 10,000 chunks"),
    ],
)
def test_a_range_that_is_none_is_refused(first: str, last: str, length: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        chunks(first, last, length, newest_first=False)


def test_the_pace_of_a_watch() -> None:
    assert pause_of("PT10M") == 600
    for text, said in (("10", "is no duration"), ("P0D", "shorter than a second")):
        with pytest.raises(JobError, match=said):
            pause_of(text)
