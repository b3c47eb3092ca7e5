"""The command stream: words in memory, allocation, waits and the merged order."""
