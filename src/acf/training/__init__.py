"""Training of one model: the loop, and a module for each of its concerns."""
