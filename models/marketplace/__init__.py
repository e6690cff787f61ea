"""A simulated ad marketplace: users, ads, an impression log, and the true click probability of every impression.

Nothing here is real data. Because the truth is known, so is the best AUC any model can reach on the log, and a click
can be drawn for any user and ad at any time.

    spec.py      sizes and effects
    world.py     ads and users, as arrays
    looks.py     styles and images of ads
    truth.py     the true click probability
    likes.py     the true like probability, and likes after clicks
    log.py       rounds of requests, and the clicks drawn in them
    files.py     Parquet files and dataset.yaml, as `adrank prepare` reads them
    command.py   adrank marketplace
"""
