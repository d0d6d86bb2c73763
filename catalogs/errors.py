"""CatalogError
├── CatalogDown        the catalog did not answer, or broke off in the middle
├── NoItems            nothing matches; says what to widen (also LookupError)
└── UnknownCollection  nobody said how its bands are to be read
"""


class CatalogError(Exception):
    """What the catalogs' floor refuses; the message says what, where and what to do."""


class CatalogDown(CatalogError):
    """The catalog did not answer, or broke off in the middle."""


class NoItems(CatalogError, LookupError):
    """The search found nothing."""


class UnknownCollection(CatalogError):
    """A collection that is neither known nor described in the job file."""
