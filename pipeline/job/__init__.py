"""The job as a user writes it: the job file, the grid, vector files.

Imports `catalogs`.
"""
