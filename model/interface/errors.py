"""Errors that the model package raises.

ModelError
├── RegionError     a point, box, scribble or mask is invalid or covers nothing (also ValueError)
├── ImageError      an image has the wrong dtype, shape or size (also ValueError)
├── ConfigError     a config is invalid or its parts do not fit together (also ValueError)
├── WeightsError    weights are missing, damaged, unsafe or belong to another config
└── DataError       an annotated data set cannot be read
"""


class ModelError(Exception):
    """Base of all errors of the model package; the message says what, where and what to do."""


class RegionError(ModelError, ValueError):
    """A point, box, scribble or mask is invalid or covers nothing of its image."""


class ImageError(ModelError, ValueError):
    """An image has a dtype, shape or size that the model does not accept."""


class ConfigError(ModelError, ValueError):
    """A config is invalid, or its parts do not fit together."""


class WeightsError(ModelError):
    """Weights are missing, damaged, unsafe or belong to another config."""


class DataError(ModelError):
    """An annotated data set cannot be read."""
