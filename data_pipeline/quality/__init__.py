"""Quality of captures: measures, thresholds and the report."""
