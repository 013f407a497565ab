"""Cached features of frozen speech encoders, stored beside the shards."""
