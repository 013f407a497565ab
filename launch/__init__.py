"""Jobs on one machine or many: one specification, and schedulers that run it.

Nothing here imports jax, so that login nodes and laptops can submit.
"""
