"""Asks the network: sessions, generation, zoom, and the analyst that the pipeline hosts.

Imports `checkpoint` and `network`.
"""
