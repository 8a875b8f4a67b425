"""The HTTP server: middleware, dialects, resources and the page."""
