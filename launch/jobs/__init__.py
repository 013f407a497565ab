"""Jobs: specification, files, states, and the worker that runs them on a node."""
