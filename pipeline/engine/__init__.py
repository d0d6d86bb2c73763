"""Runs a plan on Ray: replicas, tasks, scratch, lease, ledger.

Imports all other folders of `pipeline`.
"""
