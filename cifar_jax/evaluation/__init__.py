"""A trained network: loaded from its workdir, tested on harder images, explained."""
