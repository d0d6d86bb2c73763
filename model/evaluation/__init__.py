"""Measures a model: exams from annotated images, and the field's metrics.

Imports `inference` and `samples`.
"""
