"""Solves moving vertices for the weights of blendshapes."""
