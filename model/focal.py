"""How large the crops of small prompts are (zoom-in). Torch-free."""

FEW_PX = 8
"""Longer side under which a prompt gets a crop: half a cell of the encoders."""
LEAST_PX = 48
"""Side of the smallest crop, in pixels of the image."""
CROP_PX = 128
"""Side of an enlarged crop, and of the reduced image beside it."""
