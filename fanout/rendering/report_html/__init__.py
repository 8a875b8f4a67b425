"""Reports as one HTML file: figures, tables and every answer, which any browser opens without a network."""
