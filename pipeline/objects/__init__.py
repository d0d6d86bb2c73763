"""Turns the answers of tiles into scores and objects of the region.

Imports `planning` and below.
"""
