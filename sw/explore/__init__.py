"""Exploration: which machine for a model and a budget."""
