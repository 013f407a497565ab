"""Work on many machines: one job description, and backends that run it where it is to run.

Nothing here imports jax: submitting is done from login nodes and laptops.
"""
