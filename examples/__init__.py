"""Short programs that use the client. They work as they are against `make run`."""
