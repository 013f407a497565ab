"""Sync experts as judges: what they say about clips, and the gate that decides who may judge.

expert      what an expert is to the gate; the network of a run as one
linear      the linear expert that every expert is compared with
clips       held-out clips by person, and altered copies of them
heard       what an expert was trained on, which is left out
measures    wins over shifted audio, offsets and areas under curves, as sums of each person
gate        all measures of an expert and of the linear one
bars        what an expert must reach, line by line
offsets     the offset of a recording, from votes
votes       votes of a recording's windows over the offset
verdict     the file beside the checkpoint
report      tables
"""
