"""A checkpoint becomes a report: metrics of whole clips beside baselines."""
