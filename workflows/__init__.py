"""What people start: the command line, the demo, training, evaluation.

Imports everything below.
"""
