"""STAC items with the MLM extension: read, and written."""
