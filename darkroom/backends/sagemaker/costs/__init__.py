"""What instances cost, how fast they work, and what a run comes to before it is started."""
