"""The commands of `earthgptx`, by subject.

Imports every folder, the slow ones within the command that needs them.
"""
