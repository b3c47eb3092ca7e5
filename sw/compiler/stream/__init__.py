"""The command stream: words in memory, allocation, commands and their accesses, waits and order."""
