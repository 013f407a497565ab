"""The public API; `import a2fjax as a2f` offers its names."""
