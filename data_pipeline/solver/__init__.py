"""Moving vertices to weights of named shapes."""
