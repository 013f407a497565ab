"""A run becomes a bundle: weights, graphs for other runtimes, manifest, card and parity figures.

source          what is exported: configuration, weights, the product's own predictor
graph           a graph: inputs, outputs, JAX function, ONNX builder, parity cases
graphs/         the built-in graphs
onnx_graphs/    how they are built for ONNX
formats/        onnx · stablehlo · ...: a graph as a file, and how that file is run
parity          a file's outputs against the product's
description     the manifest · card: README.md · example: in.wav
writer          the bundle, whole or not at all

`a2fjax.bundle` reads what is written here.
"""
