"""Which weight format each linear gets, and what is cut: the costs in accuracy and in cycles."""
