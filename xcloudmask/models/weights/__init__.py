"""Weights as files: fetched, recognised by format, checked, and made a network of."""
