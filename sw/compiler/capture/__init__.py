"""From an ordinary `nn.Module` or exported program to the float graph."""
