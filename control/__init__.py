"""What is to be served, as those who decide it and those who serve it both read it."""
