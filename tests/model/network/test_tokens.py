from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthgptx.model.interface.errors import ModelError, WeightsError
from earthgptx.model.network.tokens import LOCATIONS, Vocabulary
from tests.model.lessons import vocabulary

WORDS = vocabulary()


@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_every_text_comes_back_whatever_its_script(text: str) -> None:
    plain = " ".join(text.replace("<", "(").replace(">", ")").split())
    if plain:
        assert WORDS.decode(WORDS.encode(text)) == plain


@pytest.mark.parametrize("text", ["船", "корабль", "سفينة", "<seg> a ship <eos>"])
def test_no_text_makes_a_mark(text: str) -> None:
    marks = {WORDS.mark(name) for name in ("seg", "segs", "eos", "none", "mark")}
    assert not marks & set(WORDS.encode(text))


@given(st.floats(0, 1))
def test_an_edge_keeps_its_place_to_half_a_bin(at: float) -> None:
    place = WORDS.place(WORDS.location(at))
    assert place is not None
    assert abs(place - at) <= 0.5 / LOCATIONS + 1e-9


def test_a_word_is_the_same_tokens_wherever_it_stands() -> None:
    assert WORDS.encode("ship") == WORDS.encode("a ship")[-len(WORDS.encode("ship")) :]
    assert WORDS.place(WORDS.mark("seg")) is None


def test_it_is_kept_in_a_file(tmp_path: Path) -> None:
    WORDS.save(tmp_path / "tokenizer.json")
    again = Vocabulary.load(tmp_path / "tokenizer.json")
    assert again.encode("two bright ships 25") == WORDS.encode("two bright ships 25")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="is no tokenizer"):
        Vocabulary.load(tmp_path / "tokenizer.json")


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(ModelError, match="empty text"):
        WORDS.encode("  ")
