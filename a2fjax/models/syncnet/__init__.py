"""Sync experts: do motion and speech belong to one moment?

Each frame of audio and of motion becomes a vector; a window's score compares the vectors of its
frames. One function of the two sequences therefore serves every length of window and every offset,
in training, as a loss and as a judge.

channels     the channels that an expert sees, standardised
similarity   scores of windows over offsets
windows      which windows count: speech, motion, no edge of the clip
network      the two branches
model        the contrastive and the inverse expert
"""
