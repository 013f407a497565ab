"""Many speakers in one process.

engine      speakers as rows of one compiled step
emotions    emotions by time code, in NVIDIA's names or ours
grpc        NVIDIA's A2FControllerService
websocket   speakers, health and metrics on one port
counts      what the metrics say
server      both, until a signal
"""
