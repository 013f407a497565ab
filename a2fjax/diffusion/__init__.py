"""Noise and its removal: schedules, and samplers that call any denoiser; no parameters.

schedule   how much signal is left at each step, and which steps a sampler visits
samplers   from noise to a sample, by a function that predicts the clean value
"""
