"""Monitors submitted jobs: states, logs, tables, waiting and cancelling."""
