"""The network of EarthGPT-X as torch modules.

Imports `interface`.
"""
