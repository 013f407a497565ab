"""A synthetic corpus with known truth: text to speech, articulation, simulated 4D scans."""
