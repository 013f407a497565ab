"""Stages of a build: solve takes, cut clips, write the dataset."""
