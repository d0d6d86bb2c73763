"""Trains a model: targets, losses, the training loop.

Imports all other folders of `model`.
"""
