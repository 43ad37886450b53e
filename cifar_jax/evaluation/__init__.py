"""Loads a trained network from its workdir, tests it on harder images, explains its predictions."""
