"""Fetching source files: resumed, verified, with progress."""
