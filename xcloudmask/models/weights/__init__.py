"""Weights as files: fetched, told apart by format, checked, and made a network of."""
