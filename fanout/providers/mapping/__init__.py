"""Pure mapping between our types and providers' wire formats."""
