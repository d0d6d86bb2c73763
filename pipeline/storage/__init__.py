"""Storage of a result: files behind one protocol on disk and object stores, and the fenced writer.

Imports only `errors`.
"""
