"""`adrank leaderboard`: every model of a data set, trained, compared with DIN on the same impressions, and timed."""
