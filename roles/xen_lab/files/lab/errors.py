"""Errors of the lab, worded for the person at the terminal."""


class LabError(Exception):
    """Something the lab needs did not happen; the message says what, where and what to do next."""
