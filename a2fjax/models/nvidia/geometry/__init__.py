"""Face geometry as network output: PCA coefficients or vertices, key points and eye angles."""
