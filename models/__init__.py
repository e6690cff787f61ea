"""Offline: click logs in, checkpoints out.

data/            a dataset's description, readers, and its preparation into request-grouped Parquet
marketplace/     a simulated marketplace with a known true click probability
config.py        one YAML -> one frozen configuration of model and training
networks/        one file a network, what they share, and configuration -> network
labels.py        which label a run learns
qscore.py        the one model that is a table
training.py      the one training loop, with pretraining.py, embedding_l2.py and numerics.py
checkpoint.py    what it leaves on disk
metrics.py evaluation.py breakdown.py funnel.py prerankers.py   how good the result is, at what cost
train.py evaluate.py                 the commands
"""
