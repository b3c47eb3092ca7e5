"""Whether gains multiply: optimisations measured alone, in pairs and all together."""
