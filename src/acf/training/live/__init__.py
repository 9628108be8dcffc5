"""Curves of a training that can be looked at while it trains."""
