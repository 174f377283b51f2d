"""The example in Python and a program that uses it."""
