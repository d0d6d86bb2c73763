"""Training samples: what a record teaches, mixed from all sources.

Imports `synthetic` and below; no torch.
"""
