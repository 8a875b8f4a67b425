"""Request and response shapes of each published contract."""
