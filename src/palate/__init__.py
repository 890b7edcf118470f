"""Palate aligns recommender systems with what people prefer."""

__version__ = "0.1.0"
