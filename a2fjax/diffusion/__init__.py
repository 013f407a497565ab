"""Diffusion: noise schedules, and samplers that call any denoiser; no parameters.

schedule   share of signal at each noise level, and the levels that a sampler visits
targets    what a network predicts, and the clean value that follows from it
guidance   strengthens the influence of a condition
samplers   from noise to a sample, by a function that predicts the clean value
"""
