"""ModelError
├── RegionError     a point, box or mask that is no place in an image (also ValueError)
├── ImageError      an image that the model does not take (also ValueError)
├── ConfigError     a config whose parts do not fit (also ValueError)
└── WeightsError    weights that are missing, damaged, unsafe or another config's
"""


class ModelError(Exception):
    """Something that the model's floor refuses; the message says what, where and what to do."""


class RegionError(ModelError, ValueError):
    """A point, box or mask that is no place in an image."""


class ImageError(ModelError, ValueError):
    """An image that the model does not take."""


class ConfigError(ModelError, ValueError):
    """A config whose parts do not fit together."""


class WeightsError(ModelError):
    """Weights that cannot be used."""


class DataError(ModelError):
    """An annotated set cannot be read."""
