"""What flows are trained for, one task per file; `registry.py` has their names."""
