"""Bodies of requests and what is made of them."""
