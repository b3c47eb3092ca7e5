"""How a picture is looked at: size, stride, merged patches and formats of weights, fitted to a
budget."""
