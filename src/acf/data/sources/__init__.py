"""Data sets: one class each, and the bases of one's own."""
