"""Errors of the catalogs package.

CatalogError
├── AddressRefused     an address that the job may not open
├── CatalogDown        the catalog did not answer, or answered only in part
├── NoItems            nothing matches; the message says what to widen (also a LookupError)
└── UnknownCollection  no profile says how to read the collection's bands
"""

from earthgptx.catalogs.redaction import redact


class CatalogError(Exception):
    """Base of this package's errors; the message says what failed, where, and what to do.

    Addresses in the message are redacted.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))


class AddressRefused(CatalogError):
    """An address lies where the job may not open files."""


class CatalogDown(CatalogError):
    """The catalog did not answer, answered only in part, or cannot be read as STAC."""


class NoItems(CatalogError, LookupError):
    """The search matches no Item."""


class UnknownCollection(CatalogError):
    """A collection has no usable profile, or the collections of a job have several modalities."""
