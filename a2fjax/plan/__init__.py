"""What a training step would be on devices that are not here: memory, traffic, time.

The step is compiled ahead of time for devices that are only described, and the program that comes
out is read.

topologies   devices by name ("cpu:64", "h100:256"), and the process that can describe them
facts        the process itself: compiles the step, and says what is in it
hlo          reads the text of a compiled program
collectives  what devices tell each other
predict      time and efficiency, from stated speeds
report       lines for a terminal
"""
