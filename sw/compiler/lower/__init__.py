"""From a quantised graph to commands: tiles, memories and the order of the work."""
