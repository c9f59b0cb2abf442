"""From a picture that somebody made of a digit to what the network was trained on."""
