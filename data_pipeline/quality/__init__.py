"""What a capture is worth: measures, verdicts and the report."""
