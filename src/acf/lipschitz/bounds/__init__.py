"""Proven bounds of norms and constants, and the attack that tries to refute them."""
