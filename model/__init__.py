"""EarthGPT-X: the network, its training and its evaluation.

Imports no other folder of the package, and no geodata library, Ray or xarray.
"""
