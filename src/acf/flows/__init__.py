"""Bijections, log-determinant estimators, certificate and the flow made of them."""
