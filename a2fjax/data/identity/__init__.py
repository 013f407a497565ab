"""Identity features of a neutral face mesh."""
