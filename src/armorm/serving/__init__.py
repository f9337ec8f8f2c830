"""A model on a port: one service that scores, and the routes, protocols and page in front of it."""
