"""Live audio to motion with all memory in an explicit state; docs/streaming.md.

contract    what a step is: one hop of audio as a pure function of weights, state and conditions
step        the model for live audio, frame by frame
chunks      diffusion models, chunk by chunk
cells       its layers
compiled    a step compiled at construction for a number of streams
snapshot    states as bytes, checked when they are read
stream      one speaker: push blocks of any size, take frames
"""
