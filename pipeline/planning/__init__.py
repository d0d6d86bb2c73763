"""Resolves a job into grids, time slices, blocks and tiles.

Imports `reading` and `job`.
"""
