"""Meshes, rigs, blendshapes and head motion."""
