"""Cases that several test trees share: inputs of every operator, vectors with known volumes, tolerances."""
