"""Jobs through the providers' own batch APIs."""
