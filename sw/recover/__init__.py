"""Recovery: a pruned model learns from its float original what pruning has cost."""
