"""Sweeps: grids, random draws and their parser."""
