"""Whole heads and hidden channels cut out of a float graph; what is left makes up for them."""
