"""Live audio to motion, frame by frame, with all memory in an explicit state; docs/streaming.md.

step        one hop of audio as a pure function of weights, audio, state and conditions
cells       its layers
compiled    a step compiled at construction for a number of streams
snapshot    states as bytes, checked when they are read
stream      one speaker: push blocks of any size, take frames
"""
