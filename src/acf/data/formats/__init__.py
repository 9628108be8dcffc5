"""File formats, read and written piece by piece."""
