"""Training the decoder itself: to order pairs, to compare two shown answers, to predict ratings."""
