"""A model behind HTTP: one service that scores, routes that ask it, and the door in front of them."""
