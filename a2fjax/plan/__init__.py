"""Predicts memory, traffic and time of a training step on devices that are not available.

The step is compiled ahead of time for a description of the devices, and the compiled program is
analysed.

topologies     parses devices ("cpu:64", "h100:256") and starts a process for each topology
compile_stats  that process: compiles the step and reports its contents
hlo            parses the text of a compiled program
collectives    counts the data that devices exchange
predict        computes time and efficiency from assumed speeds
report         formats the results for a terminal
model_summary  summarises a model: parameters, operations, memory, look-ahead
"""
