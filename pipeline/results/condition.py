"""Conditions over the columns of objects, written as CQL2 text, as SQL for DuckDB.

Only what is listed here becomes SQL: a job file may come from anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from earthgptx.pipeline.errors import JobError

COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")
ARITHMETIC = ("+", "-", "*", "/")
EXACT = 2**53
"""Largest number that a JSON number holds with all of its digits."""
LONGEST, DEEPEST = 2000, 60
"""Characters of a condition; parentheses or operators of one kind, with negations."""
EXAMPLE = "label = 'ship' AND score > 0.5"


def sql_of(text: str, columns: Sequence[str]) -> str:
    """Returns a condition as an SQL expression.

    Args:
        text: CQL2 text: comparisons, AND, OR, NOT, IN, BETWEEN, LIKE, IS NULL, CASEI, arithmetic,
            DATE and TIMESTAMP.
        columns: names that it may hold.

    Raises:
        JobError: the text is no condition, or names a column that is not there.
    """
    import cql2

    if len(text) > LONGEST or max(map(text.count, "(+-*/")) + text.upper().count("NOT") > DEEPEST:
        # Deeper ones take the parser minutes, or end its process.
        raise JobError(f"'{text[:60]}...' is longer or deeper than any condition; make it simpler")
    try:
        expression = cql2.parse_text(text)
        expression.validate()
        document = expression.to_json()
    except Exception as error:  # cql2 has no common error type
        first = " ".join(str(error).split())[:120]
        raise JobError(f"'{text}' is no condition ({first}); for example: {EXAMPLE}") from error
    if not isinstance(document, dict) or _is_number(document):
        raise JobError(f"'{text}' is no condition; for example: {EXAMPLE}")
    return _Sql(text, columns).of(document)


def quoted(text: str) -> str:
    """Returns a printable text as an SQL literal, where only the quote means something.

    Not a parameter: for those DuckDB loads pandas, which takes longer than most questions.
    """
    return "'" + text.replace("'", "''") + "'"


class _Sql:
    """Writes the parts of one condition."""

    def __init__(self, text: str, columns: Sequence[str]) -> None:
        self._text, self._columns = text, columns

    def of(self, part: Any) -> str:
        match part:
            case bool():
                return "true" if part else "false"
            case int() | float() if abs(part) <= EXACT:
                return repr(float(part))
            case int() | float():
                raise JobError(
                    f"'{self._text}' has a number of more than 15 digits, which CQL2 rounds; write "
                    "it as a text: object_id = '1234567890123456789'"
                )
            case str() if part.isprintable():
                return quoted(part)
            case {"property": str(name)}:
                return self._column(name)
            case {"timestamp": str(moment)} | {"date": str(moment)}:
                return f"CAST({quoted(moment)} AS TIMESTAMPTZ)"
            case {"op": str(operator), "args": list(parts)}:
                return f"({self._operation(operator, parts)})"
        raise self._refused(str(part))

    def _operation(self, operator: str, parts: list[Any]) -> str:
        if operator == "in":
            value, choices = parts
            return f"{self.of(value)} IN ({', '.join(map(self.of, choices))})"
        given = [self.of(part) for part in parts]
        match operator, given:
            case (("and" | "or"), [_, *_]):
                return f" {operator.upper()} ".join(given)
            case "not", [one]:
                return f"NOT {one}"
            case "isNull", [one]:
                return f"{one} IS NULL"
            case "casei", [one]:
                return f"lower({one})"
            case "between", [one, low, high]:
                return f"{one} BETWEEN {low} AND {high}"
            case "like", [one, pattern]:
                return f"{one} LIKE {pattern} ESCAPE '\\'"
            case _, [one, other] if operator in (*COMPARISONS, *ARITHMETIC):
                return f"{one} {operator} {other}"
        raise self._refused(operator)

    def _column(self, name: str) -> str:
        if name not in self._columns:
            raise JobError(
                f"'{self._text}' names '{name}', which is no column of the objects; there are "
                f"{', '.join(self._columns)}"
            )
        return f'"{name}"'

    def _refused(self, what: str) -> JobError:
        return JobError(
            f"'{self._text}' uses {what[:40]}, which a condition cannot have; for example: "
            f"{EXAMPLE}"
        )


def _is_number(document: dict[str, Any]) -> bool:
    """Whether an expression has a value that is neither true nor false."""
    return document.get("op") in (*ARITHMETIC, "casei") or "property" in document
