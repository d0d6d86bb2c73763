"""Flows of jobs: what they consist of, in which order they run, and what comes of it."""
