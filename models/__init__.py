"""Offline: click logs in, checkpoints out.

data/            a dataset's description, readers, and its preparation into request-grouped Parquet
marketplace/     a simulated marketplace with a known true click probability
config.py        one YAML -> one frozen configuration of model and training
layers.py        embeddings of all fields, Dice, multi-layer perceptron
attention.py     the activation unit of DIN
qscore.py dqm.py din.py      the models of the funnel;  registry.py  configuration -> network
training.py      the one training loop, with pretraining.py, embedding_l2.py and numerics.py
checkpoint.py    what it leaves on disk
metrics.py evaluation.py funnel.py   how good the result is
train.py evaluate.py                 the commands
"""
