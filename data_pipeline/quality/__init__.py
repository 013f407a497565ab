"""Quality of captures: measures, verdicts and the report."""
