"""Prepared data sets, as the later stages read them. They depend on this folder of `data` and on no other."""
