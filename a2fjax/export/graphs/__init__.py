"""The built-in graphs: model (waveform to curves), identity (points of a mesh to its vector)."""
