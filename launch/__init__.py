"""Runs jobs on one machine or many: one specification, several schedulers.

Nothing here imports jax, so that login nodes and laptops can submit.
"""
