"""Bijections, log-determinant estimators, certificate and the flow made of them."""

from acf.flows.build import build
from acf.flows.certificate import Certificate
from acf.flows.flow import Flow, certify, tighten
from acf.flows.storage import load, save

__all__ = ["Certificate", "Flow", "build", "certify", "load", "save", "tighten"]
