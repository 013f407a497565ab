"""Submitted jobs: states, logs, tables; waiting for them and stopping them."""
