"""`adrank bench http`: the same weights and the same body, served by us and by others, on one core each in turn."""
