"""What others would train the network with, each as its own documentation does it, a file each."""
