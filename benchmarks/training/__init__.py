"""`adrank bench train`: DIN's training throughput beside other libraries' DIN, on the same impressions."""
