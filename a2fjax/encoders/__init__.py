"""Pretrained speech encoders: wav2vec 2.0, HuBERT and Whisper behind one registry."""
