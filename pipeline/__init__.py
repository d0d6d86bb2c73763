"""From a job file to a Zarr result: the way of a tile.

Imports `catalogs` and `model.interface`; meets a model only as `Analyst`.
"""
