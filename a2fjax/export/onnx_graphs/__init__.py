"""ONNX graphs built from the weights with `onnx.helper`; no tracing, no converter.

graph_builder   nodes and initializers as method calls
level           level normalisation of a recording
mel · pitch     acoustic signals of the waveform
layers          linear maps, convolutions, FiLM, GRU
regression      the whole model
identity        points of a neutral mesh → identity vector
"""
