"""Status, logs and result tables of submitted jobs."""
