"""Words of a question: what matches them in labels and captions, and how well."""

from __future__ import annotations

import re
import unicodedata

import pyarrow as pa

from earthgptx.pipeline.errors import JobError

SIBILANTS = ("s", "x", "z", "ch", "sh")
"""Endings of words whose plural ends with `es`."""


def words_of(text: str) -> list[str]:
    """Returns the words of a question, normalised, each once."""
    return list(dict.fromkeys(_normal(text).split()))


def forms(word: str) -> set[str]:
    """Returns a word, its simple plural, and its singular."""
    found = {word}
    if word.endswith(SIBILANTS):
        found.add(f"{word}es")
    elif word.endswith("y"):
        found |= {f"{word[:-1]}ies", f"{word}s"}
    else:
        found.add(f"{word}s")
    if word.endswith("ies"):
        found.add(f"{word[:-3]}y")
    elif word.endswith("es") and word[:-2].endswith(SIBILANTS):
        found.add(word[:-2])
    elif word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        found.add(word[:-1])
    return found


def pattern(word: str) -> str:
    """Returns the regular expression, of RE2, of the forms of a word."""
    alternatives = "|".join(re.escape(form) for form in sorted(forms(word)))
    # Not \b: a word may begin or end with what is no letter. Marks belong to the letter before.
    return rf"(^|[^\pL\pN\pM])({alternatives})($|[^\pL\pN\pM])"


def ranked(table: pa.Table, text: str) -> pa.Table:
    """Returns a table of objects with a column `rank`, the best match of the words first.

    `rank` is the BM25 score of label and caption (Robertson and Zaragoza 2009, in Lucene's form);
    how rare a word is counts among these objects.

    Args:
        table: objects with the columns `label`, `caption` and `object_id`.
        text: words of the question.

    Raises:
        JobError: the package that computes it is missing.
    """
    try:
        from bm25s import BM25
    except ImportError as error:
        raise JobError(
            "rank needs a package that is missing: pip install earthgptx[rank]"
        ) from error
    asked = [token for word in words_of(text) for token in _tokens(word)]
    as_asked = {form: token for token in asked for form in forms(token)}
    columns = (table[name].to_pylist() for name in ("label", "caption"))
    tokens = [
        [as_asked.get(token, token) for token in _tokens(f"{label} {caption}")] or [""]
        for label, caption in zip(*columns, strict=True)
    ]
    if not tokens:
        return table.append_column("rank", pa.array([], pa.float64()))
    index = BM25(method="lucene")
    index.index(tokens, show_progress=False)
    known = [word for word in asked if word in index.vocab_dict]
    scores = index.get_scores(known) if known else [0.0] * len(table)
    rank = pa.array([float(score) for score in scores], pa.float64())
    return table.append_column("rank", rank).sort_by(
        [("rank", "descending"), ("object_id", "ascending")]
    )


def _tokens(text: str) -> list[str]:
    """Returns the runs of letters and digits of a text, as `pattern` tells words apart."""
    return re.findall(r"[^\W_]+", _normal(text))


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()
