"""ModelError
└── RegionError     a point, box or mask that is no place in an image (also ValueError)
"""


class ModelError(Exception):
    """Something that the model's floor refuses; the message says what, where and what to do."""


class RegionError(ModelError, ValueError):
    """A point, box or mask that is no place in an image."""
