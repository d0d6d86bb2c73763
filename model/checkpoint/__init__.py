"""Weights: saved, loaded, and taken from published models.

Imports `network` and `synthetic`.
"""
