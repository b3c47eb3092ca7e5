"""Boards that can be bought: what is on them, and their top modules."""
