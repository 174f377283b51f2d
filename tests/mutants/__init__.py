"""Mutants: the product without one defence each; a test or a simulated world must fail with it."""
