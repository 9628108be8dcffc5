"""Prepared data sets as later stages read them; they depend on this folder and on no other of `data`."""
