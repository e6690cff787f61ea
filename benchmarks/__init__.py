"""Side-by-side measurements. Every figure in docs/performance.md comes from here, through `adrank bench`."""
