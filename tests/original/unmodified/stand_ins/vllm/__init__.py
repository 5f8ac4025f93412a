"""Stands in for a package of inference."""
