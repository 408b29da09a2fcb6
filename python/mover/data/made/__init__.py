"""Data sets made by rule, or from what ships with scikit-learn, beside the clips of `mover.data.synthetic`.

views.py: feature vectors that are noisy views of a shared latent. folder.py: a folder that is whole or not there.
"""
