"""The Zarr store and what is read from it: layers, objects, status, pictures, COGs.

Imports `objects` and below.
"""
