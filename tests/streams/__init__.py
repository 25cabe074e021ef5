"""Saved domains for tests.

samples   records and whole streams of every kind of guest, packed from the specifications' layouts
builder   epochs with chosen memory, through the project's own writer
meaning   what a stream must mean to its receiver, worked out the slow way
"""
