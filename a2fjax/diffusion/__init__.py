"""Noise and its removal: schedules, and samplers that call any denoiser; no parameters.

schedule   how much signal is left at each noise level, and which levels a sampler visits
targets    what a network puts out, and the clean value that it means
guidance   how much more a condition shall matter
samplers   from noise to a sample, by a function that predicts the clean value
"""
