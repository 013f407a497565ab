"""The commands of submit.py."""
