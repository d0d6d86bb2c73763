"""What a model is asked about each tile, and the CFAR detector.

Imports `planning` and below.
"""
