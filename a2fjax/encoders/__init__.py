"""Pretrained speech encoders: audio in, hidden states on the motion's frames out.

speech_encoder   the interface `SpeechEncoder`, which every encoder implements
feature_names    names in `audio.features`, such as "whisper:PATH"
storage          reads an encoder by its name; keeps its weights in a run folder
wav2vec2         wav2vec 2.0 and HuBERT
whisper          Whisper's encoder

Encoders are registered on `a2fjax.registry.encoders`; a plugin registers its own.
"""
