"""Whisper's encoder in JAX: waveform to pretrained features, 50 frames a second."""

from a2fjax.encoders.whisper.chunked import encode_chunked
from a2fjax.encoders.whisper.encoder import WhisperEncoder, load
from a2fjax.encoders.whisper.network import sinusoids
from a2fjax.encoders.whisper.spectrogram import log_mel

__all__ = ["WhisperEncoder", "encode_chunked", "load", "log_mel", "sinusoids"]
