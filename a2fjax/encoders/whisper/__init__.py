"""Whisper's encoder: network and weights."""
