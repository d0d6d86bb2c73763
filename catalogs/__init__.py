"""Finds imagery, knows the collections, publishes results.

Imports no torch, no Ray and nothing else of the package.
"""
