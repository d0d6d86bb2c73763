"""Find imagery, know the collections, publish results. Knows no torch and no Ray."""

from catalogs.collections import KNOWN, CollectionProfile, profile_of
from catalogs.errors import CatalogError
from catalogs.search import freeze, search, thaw

__all__ = ["KNOWN", "CatalogError", "CollectionProfile", "freeze", "profile_of", "search", "thaw"]
