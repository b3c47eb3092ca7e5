"""Host link: memory and registers of a board over two wires; docs/link.md has the protocol."""
