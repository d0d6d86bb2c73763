"""The exit code of a command that ends with an error of this package."""

from __future__ import annotations

from earthgptx.catalogs.errors import CatalogDown, CatalogError
from earthgptx.model.interface.errors import ModelError
from earthgptx.pipeline.errors import PipelineError

OURS = (PipelineError, CatalogError, ModelError)
"""Errors of this package: their text is a sentence for the user."""


def code_of(error: Exception) -> int:
    """Returns the exit code for one of `OURS`: 1 failed, 2 a mistake, 3 an outage."""
    if isinstance(error, PipelineError):
        return error.exit_code
    return 3 if isinstance(error, CatalogDown) else 2
