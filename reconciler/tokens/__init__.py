"""Where tokens come from: the one request to the issuer, the issuer's time, one shared cache."""
