"""Reads imagery: assets, windows, and the scene of a block.

Imports `job`.
"""
