"""Annotated sets as records: one image with its regions.

Imports `interface`; no torch.
"""
