"""Phones of a clip: readers of alignments, an aligner for English, and the metric."""
