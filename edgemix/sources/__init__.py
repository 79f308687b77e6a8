"""How a model comes in, one file each."""
