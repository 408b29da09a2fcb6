"""Data sets made by rule, or from what ships with scikit-learn, beside the clips of `mover.data.synthetic`.

views.py: feature vectors that are noisy views of one latent. digits.py: pictures of digits with captions. notes.py:
measurements of cells with notes. findings.py: numbers in words. folder.py: a folder that is whole or not there.
"""
