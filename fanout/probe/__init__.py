"""Live checks of providers, and what they found."""
