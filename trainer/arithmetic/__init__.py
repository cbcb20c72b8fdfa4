"""Pure arithmetic: the flow process, tensor shapes, noise drawn by key."""
