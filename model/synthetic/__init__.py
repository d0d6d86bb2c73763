"""The made world: rendered images with their truth, for training and for the demo.

Imports `datasets` and below; no torch.
"""
