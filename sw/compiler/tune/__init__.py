"""Which weight format each linear gets: what it costs in accuracy and in cycles."""
