"""Ways of applying a pseudo-inverse, one file each, and the choice between them."""
