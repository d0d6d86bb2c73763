"""What has to be done of a time slice, as a table of decisions."""

from __future__ import annotations

from earthgptx.pipeline.engine.growth import Left, SliceWork, work_of
from earthgptx.pipeline.engine.ledger import Entry
from earthgptx.pipeline.engine.scratch import FailedTiles
from earthgptx.pipeline.job.grid import BlockKey

ROW = [BlockKey("g", 0, 0, col) for col in range(5)]
"""Five blocks side by side."""


def entry(content: str, *, committed: bool = True) -> Entry:
    return Entry(4, FailedTiles(0, 0), content, committed)


def left(*, frames: str = "01234", parts: str = "01234", scores: str = "") -> Left:
    frames_, parts_, scores_ = ({ROW[int(c)] for c in each} for each in (frames, parts, scores))
    return Left(frames=frames_, parts=parts_, scores=scores_)


def columns(work: SliceWork) -> dict[str, str]:
    return {
        name: "".join(str(key.col) for key in sorted(getattr(work, name)))
        for name in ("infer", "commit", "border", "reopen", "open", "erase")
    }


ALL = {key: entry("a") for key in ROW}
WANTED = dict.fromkeys(ROW, "a")


def test_nothing_is_done_of_a_slice_that_is_as_it_should_be() -> None:
    assert set(columns(work_of(WANTED, ALL, left())).values()) == {""}


def test_everything_is_done_of_a_new_slice() -> None:
    assert columns(work_of(WANTED, {}, left(frames="", parts=""))) == {
        "infer": "01234",
        "commit": "01234",
        "border": "",
        "reopen": "",
        "open": "01234",
        "erase": "",
    }


def test_a_killed_run_goes_on_with_the_scores_that_are_left() -> None:
    committed = {key: entry("a") for key in ROW[:2]}
    assert columns(work_of(WANTED, committed, left(frames="0123", parts="0123", scores="23"))) == {
        "infer": "4",
        "commit": "1234",
        "border": "1",
        "reopen": "1",
        "open": "234",
        "erase": "",
    }


def test_a_block_that_should_have_seen_something_else_is_inferred_and_its_neighbours_blended() -> (
    None
):
    assert columns(work_of(WANTED | {ROW[2]: "b"}, ALL, left(frames="0134", parts="0134"))) == {
        "infer": "2",
        "commit": "123",
        "border": "13",
        "reopen": "13",
        "open": "2",
        "erase": "",
    }


def test_a_block_that_no_item_shows_any_more_is_erased_and_its_neighbour_blended() -> None:
    wanted = dict.fromkeys(ROW[:4], "a")
    assert columns(work_of(wanted, ALL, left())) == {
        "infer": "",
        "commit": "3",
        "border": "3",
        "reopen": "3",
        "open": "",
        "erase": "4",
    }


def test_lost_answers_are_inferred_again_and_nothing_is_committed() -> None:
    assert columns(work_of(WANTED, ALL, left(parts="0123")))["infer"] == "4"
    assert columns(work_of(WANTED, ALL, left(parts="0123")))["commit"] == ""
    assert columns(work_of(WANTED, ALL, left(frames="")))["infer"] == ""


def test_lost_sums_of_a_neighbour_are_inferred_again_before_a_border_is_blended() -> None:
    found = columns(work_of(WANTED | {ROW[2]: "b"}, ALL, left(frames="13", parts="0134")))
    assert (found["infer"], found["commit"]) == ("024", "123")


def test_blocks_that_are_tried_again_are_forgotten_first() -> None:
    found = columns(work_of(WANTED, ALL, left(), {ROW[0]}))
    assert (found["infer"], found["commit"], found["border"]) == ("0", "01", "1")
    assert (found["open"], found["reopen"]) == ("0", "1")


def test_a_block_that_was_opened_is_only_blended_at_its_border() -> None:
    opened = ALL | {ROW[1]: entry("a", committed=False)}
    assert columns(work_of(WANTED, opened, left())) == {
        "infer": "",
        "commit": "1",
        "border": "1",
        "reopen": "",
        "open": "",
        "erase": "",
    }


def test_a_block_that_was_opened_is_erased_when_no_item_shows_it_any_more() -> None:
    opened = ALL | {ROW[4]: entry("0", committed=False)}
    found = columns(work_of(dict.fromkeys(ROW[:4], "a"), opened, left()))
    assert (found["erase"], found["commit"]) == ("4", "3")


def test_a_block_that_is_inferred_again_for_lost_answers_is_committed_as_a_whole() -> None:
    wanted = WANTED | {ROW[2]: "b"}
    found = columns(work_of(wanted, ALL, left(frames="034", parts="034")))
    assert (found["infer"], found["commit"], found["border"]) == ("12", "123", "3")
