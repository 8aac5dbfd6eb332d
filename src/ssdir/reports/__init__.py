"""HTML and Markdown reports, and the names of the metrics in them."""
