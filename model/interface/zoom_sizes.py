"""Sizes of the crops around small objects (zoom-in). Torch-free."""

FEW_PX = 16
"""Longer side in pixels below which an object gets a crop: one cell of the encoders."""
TIMES = 3
"""Side of a crop divided by the longer side of its object."""
LEAST_PX = 32
"""Side of the smallest crop, in pixels of the image."""
CROP_PX = 128
"""Side in pixels of an enlarged crop, and of the reduced image that comes with it."""
