"""A synthetic corpus: text to speech, articulation, simulated 4D scans, with known truth."""
