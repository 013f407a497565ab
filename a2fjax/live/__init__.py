"""What stands around a live stream: clocks, packets, idle motion, listeners; docs/live.md.

resample · jitter · drift      audio of any rate, in packets, by another clock, to 16 kHz
voice · one_euro · idle        speech or not; smoothing; blinks, gaze, breath and head
session                        one speaker: audio in, frames with their audio out
pacing                         frames on a grid of 20 ms
sources · listeners/ · hub     where audio comes from and where frames go
run                            one source, one session, many listeners
"""
