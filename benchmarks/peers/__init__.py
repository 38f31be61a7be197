"""What the training benchmark times, each in a process of its own: this project, and its peers at equal sizes."""
