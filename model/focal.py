"""How large the crops of small objects are (zoom-in). Torch-free."""

FEW_PX = 16
"""Longer side under which an object gets a crop: a cell of the encoders."""
TIMES = 3
"""Side of a crop, in longer sides of its object."""
LEAST_PX = 32
"""Side of the smallest crop, in pixels of the image."""
CROP_PX = 128
"""Side of an enlarged crop, and of the reduced image beside it."""
