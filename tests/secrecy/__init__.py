"""No secret leaves the product: every test's outputs are searched for the run's secrets."""
