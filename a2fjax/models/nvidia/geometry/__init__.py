"""Face geometry as output: PCA coefficients or vertices, key points and eye angles."""
