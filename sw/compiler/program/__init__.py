"""The compiled program: what a device runs and how its host feeds it."""
