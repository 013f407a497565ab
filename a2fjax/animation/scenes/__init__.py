"""Scenes: a head whose shapes the curves move, as glTF and USD."""
