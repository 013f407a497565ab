"""What runs on a node: job specs, the worker, requeue decisions."""
