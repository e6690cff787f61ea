"""What became of what was served: joins requests, impressions and clicks, keeps them as Parquet, and compares arms."""
