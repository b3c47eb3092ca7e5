"""Texts written for this project, one a line; same licence as the code."""
