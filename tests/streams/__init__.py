"""Saved domains for tests, built with the project's writer, and what they must mean, worked out the slow way."""
